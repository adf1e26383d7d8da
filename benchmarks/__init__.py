"""Scripts that produce every number that the README and the decisions quote; each ends with one line of JSON."""

"""What repair reads of a model and solves for it."""

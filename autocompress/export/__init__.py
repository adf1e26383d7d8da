"""Prove that an artifact computes what the student computes, and pack it with all that it needs to run."""

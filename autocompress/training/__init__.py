"""Fit the weights of a model to batches."""

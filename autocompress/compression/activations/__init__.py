"""Ranges of 8-bit activations, what scales move from activations to weights, and low-bit quantizers for study."""

"""Grids, and which level of them each weight gets."""

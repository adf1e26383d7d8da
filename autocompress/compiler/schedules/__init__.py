"""Kernels as loop nests, one file a family; each function returns a PrimFunc for static dimensions and one target."""

"""Read and edit one transformer family through an adapter."""

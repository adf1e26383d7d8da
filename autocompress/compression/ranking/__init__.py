"""How much heads, neurons, channels, layers and tokens matter, and which of them stay."""

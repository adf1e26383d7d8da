"""How a student is trained: losses, what they compare, and the recipes that are made of them."""

"""One file a method: its step, what it suggests, what it makes of a shape, and how it changes a model."""

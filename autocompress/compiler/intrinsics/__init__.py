"""Instructions that a kernel asks for by name because the compiler would not choose them."""

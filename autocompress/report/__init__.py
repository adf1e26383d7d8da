"""A run, told to people: a verdict for the terminal and one page of HTML, from frozen values."""

"""Other machines: the agent that runs on a board, and how this machine reaches it."""

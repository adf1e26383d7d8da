"""Ask Optuna for candidates, hold each against the budget, and score only those inside it."""

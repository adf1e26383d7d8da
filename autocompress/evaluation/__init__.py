"""Say how good a model is: where its data comes from, what the task is, and how it is scored."""

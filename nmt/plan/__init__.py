"""Planning a run: compile a recipe's programs ahead of time, read them, and estimate time and memory."""

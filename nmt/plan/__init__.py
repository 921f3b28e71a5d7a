"""What a recipe needs, before it runs: compiled ahead of time, its programs read, its time and memory estimated."""

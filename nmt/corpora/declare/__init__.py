"""Declarations of corpora (data/NAME.yaml): sections, their checks, and patterns of paths."""

"""Runs a recipe end to end, skipping the stages that are done."""

"""Objective, optimizer, step, loop, checkpoints and telemetry."""

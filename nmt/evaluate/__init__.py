"""Metrics, the matrix of pairs and reports."""

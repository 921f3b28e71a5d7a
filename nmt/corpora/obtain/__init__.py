"""Obtaining corpora: published packages, through the person's own clients, into the cache; nothing is installed."""

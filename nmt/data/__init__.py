"""Tokens: the vocabulary, the prepared store, the mixture, and packed batches."""

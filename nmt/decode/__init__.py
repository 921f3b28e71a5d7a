"""Beam search and the Translator: text in, text out."""

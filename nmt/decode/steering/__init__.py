"""Steering a translation: prefixes, glossaries, forced and forbidden phrases, and text that is kept byte for byte."""

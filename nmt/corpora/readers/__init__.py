"""Readers: one module a form of text, each giving rows in the order of the files, in bounded memory."""

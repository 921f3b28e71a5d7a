"""Obtaining corpora: packages are downloaded by the clients that the person has set up, and never installed.

`kinds` is the table of the kinds of obtaining, `fetch` downloads several files at once, `cache` keeps them.
"""

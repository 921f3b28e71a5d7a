"""The cleaned corpus on disk: how it is made, how it is decided which pairs are kept, and how it is read."""

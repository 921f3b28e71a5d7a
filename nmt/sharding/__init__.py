"""Meshes, logical axes and the annotation of arrays."""

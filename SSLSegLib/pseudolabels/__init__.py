"""Pseudo-labels: merging classes, uncertainty, provenance, files, ranking and review."""

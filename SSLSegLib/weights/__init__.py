"""Weights: the catalogue, where files lie, downloads with consent, safe loading, SAM2 built from stock classes."""

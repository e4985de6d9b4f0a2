"""VESSA, stage 1 and what it lends to stage 2: a template bank, a vision-language prompt and SAM2's memory (paper 2).

Import the submodules; the room itself imports nothing.
"""

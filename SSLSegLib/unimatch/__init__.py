"""UniMatch v2 for volumes: DINOv2 + DPT, weak-to-strong consistency, and a guide whose word counts less over time.

Import the submodules. ``run.train_and_label`` goes from a cohort to a model and pseudo-labels (paper 2, section 3.2).
"""

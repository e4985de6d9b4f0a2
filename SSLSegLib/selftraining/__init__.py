"""FSL-nnUNet: self-training rounds with the real nnU-Net v2 that end in a model (paper 1, Algorithm 1).

Import the submodules. ``rounds.self_train`` is the loop of the paper; ``predict`` and ``export`` use what it leaves.
"""

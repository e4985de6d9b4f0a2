"""Where a structure lies in the labelled cases, as a second voice beside the ensemble. Not part of the paper.

SAM2's memory is told how a structure looks, and neither at which height of the volume nor, beyond the reach of its
position encoding, where in the slice. Where scans show the same field of view, place alone says much.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["place_prior", "with_place"]

SPREAD = 0.025
"""Of the blur, a standard deviation as a share of each axis."""


def place_prior(masks: Sequence[np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """How often a class lies at each place, from labelled masks laid on each other by relative position.

    Axes are taken as they are stored: like the ensemble itself, this asks for one orientation.

    Args:
        masks: bool (K, J, I), each of its own size.
        shape: (K, J, I) of the unlabelled volume.

    Returns:
        float32 of that shape, 0 to 1.
    """
    total = np.zeros(shape, np.float32)
    for mask in masks:
        at = [((np.arange(size) + 0.5) * own / size).astype(int) for size, own in zip(shape, mask.shape, strict=True)]
        total += mask[np.ix_(*at)]
    blurred = gaussian_filter(total / len(masks), [SPREAD * size for size in shape], mode="nearest")
    return np.clip(blurred, 0, 1)


def with_place(probability: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The mean of both voices: neither decides alone against the other's certainty."""
    return ((probability + prior) / 2).astype(np.float32)

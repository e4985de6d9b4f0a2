"""Where labelled volumes that were registered to an unlabelled one say that a class lies. Not in the paper.

Label fusion: each moved mask has a say at each voxel, the more the more alike the volumes are around it (locally
weighted voting, Artaechevarria et al., 2009) and the more it agrees with the outcome (SIMPLE, Langerak et al., 2010).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from .registration import Displacement

__all__ = ["agreed", "vote", "vote_weights"]

_FINEST = 160  # voxels along an axis at which masks are moved
_TEMPERATURE = 0.1  # of the weights: a tenth more unlike than the mean of all makes a factor of e
_AGREEMENT = 4  # power of a mask's overlap with the vote, by which it counts when votes are counted again
_COUNTS = 3  # times that they are


def vote(labelled: Iterable[tuple["Displacement", np.ndarray]], shape: Sequence[int], blur: float) -> np.ndarray:
    """How likely a class lies at each voxel, from labelled masks moved there.

    The mean in which those count more that are more alike around the voxel (locally weighted voting, as Artaechevarria
    et al., 2009, with descriptors in place of brightness), and then those that agree more with the outcome: a mask that
    was moved elsewhere loses its say (as Langerak et al., 2010, who leave such masks out).

    Args:
        labelled: Where each place lies in a labelled volume, and the class's mask there, bool (K, J, I).
        shape: (K, J, I) of the volume that they are moved to.
        blur: Standard deviation as a share of each axis.

    Returns:
        float32 of that shape, 0 to 1.
    """
    from scipy.ndimage import gaussian_filter

    # The fields are smooth and the result is blurred: no need for every voxel of a large volume.
    size = tuple(min(length, _FINEST) for length in shape)
    found = [(displacement.moved(mask, size), displacement.unlike) for displacement, mask in labelled]
    moved, unlike = (torch.stack(some) for some in zip(*found, strict=True))
    mean = agreed(moved, vote_weights(unlike[:, 0], size))
    blurred = torch.from_numpy(gaussian_filter(mean.cpu().numpy(), [blur * n for n in size], mode="nearest"))
    fine = F.interpolate(blurred[None, None], tuple(shape), mode="trilinear", align_corners=False)[0, 0]
    return fine.clamp_(0, 1).numpy()


def agreed(masks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean of masks by weights, and then by how much each agrees with the outcome.

    Args:
        masks: float32 (m, K, J, I), 0 to 1.
        weights: float32 (m, K, J, I) that sum to one.

    Returns:
        float32 (K, J, I).
    """
    mean = (weights * masks).sum(0)
    for _ in range(_COUNTS):
        # A little remains of each, for where none agree.
        says = _overlap(masks, mean).clamp(min=0.02).pow(_AGREEMENT).view(-1, 1, 1, 1)
        mean = (weights * says * masks).sum(0) / (weights * says).sum(0)
    return mean


def _overlap(some: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Dice of (m, K, J, I) with (K, J, I), all between 0 and 1: of 0 and 1 what it usually is."""
    both = torch.minimum(some, one).sum((1, 2, 3))
    return 2 * both / (some.sum((1, 2, 3)) + one.sum()).clamp(min=1e-6)


def vote_weights(unlike: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """How much each labelled volume counts at each voxel; they sum to one.

    Args:
        unlike: Of each volume, (m, 1, k, j, i) (:attr:`Displacement.unlike`).
        shape: (K, J, I) of the weights.

    Returns:
        float32 (m, K, J, I).
    """
    relative = unlike / unlike.mean(0).clamp(min=1e-12)
    relative = F.interpolate(relative, tuple(shape), mode="trilinear", align_corners=False)[:, 0]
    return torch.softmax(-relative / _TEMPERATURE, 0)

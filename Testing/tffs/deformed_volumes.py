"""Volumes of a few structures, deformed by known displacements, and what is measured of them."""

from functools import cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

SHAPE = (16, 32, 32)
BRIGHTNESS = (0.0, 1 / 3, 2 / 3, 1.0)  # of four structures


def waves(shape, count, sigma, seed):
    """Smooth random volumes, each with a standard deviation of one."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape))
    smooth = np.stack([gaussian_filter(one, sigma, mode="nearest") for one in noise])
    smooth -= smooth.mean((1, 2, 3), keepdims=True)
    return smooth / np.maximum(smooth.std((1, 2, 3), keepdims=True), 1e-6)


@cache
def pair(shape=SHAPE, amount=(1, 2, 2), seed=0):
    """Labels of a moving and of a fixed volume, and the displacement in voxels that leads from this one to that."""
    moving = waves(shape, 4, 2.5, seed).argmax(0)
    displacement = np.reshape(amount, (3, 1, 1, 1)) * waves(shape, 3, [0.4 * size for size in shape], seed + 10)
    fixed = map_coordinates(moving, np.indices(shape) + displacement, order=0, mode="nearest")
    return moving, fixed, displacement


def image(labels, brightness=BRIGHTNESS, seed=0):
    """The labels as a scanner might show them: a little blurred, with noise of its own."""
    blurred = gaussian_filter(np.array(brightness)[labels], [0.5 if size > 4 else 0 for size in labels.shape])
    return (blurred + np.random.default_rng(seed).normal(0, 0.02, labels.shape)).astype(np.float32)


def dice(one, other):
    """The mean of the four structures."""
    return np.mean([2 * ((one == c) & (other == c)).sum() / ((one == c).sum() + (other == c).sum()) for c in range(4)])


def relative(shape):
    """Where the voxels of a volume lie, in shares of each axis."""
    return (np.indices(shape) + 0.5) / np.reshape(shape, (3, 1, 1, 1))


def taken(volume, places, order=1, mode="nearest"):
    """What a volume shows at places in shares of each axis."""
    at = places * np.reshape(volume.shape, (3, 1, 1, 1)) - 0.5
    return map_coordinates(volume.astype(float), at, order=order, mode=mode)


def fine(field, shape):
    """(3, K, J, I) of a coarse field."""
    return np.stack([taken(one, relative(shape)) for one in field])


def shifted(voxels):
    """How a volume lies on another, axes as they are, that begins at this voxel of it."""
    return torch.cat([torch.eye(3), torch.tensor(voxels, dtype=torch.float32).view(3, 1)], 1)


def in_voxels(displacement):
    """(3, K, J, I) at every voxel."""
    here, laid = np.indices(displacement.fixed) + 0.5, displacement.laid.double().numpy()
    whole = np.einsum("ab,bkji->akji", laid[:, :3], here) + laid[:, 3].reshape(3, 1, 1, 1) - here
    return whole + fine(displacement.voxels[0].numpy(), displacement.fixed)


def length(displacement):
    return np.sqrt((displacement**2).sum(0))

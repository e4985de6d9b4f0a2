"""What the frames of a sample show: the region of the target, as the engine's do, or some field of view around it."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..cases.frames import IMAGENET_MEAN, IMAGENET_STD
from ..tffs.region import Region, class_region

__all__ = [
    "EVERYTHING",
    "View",
    "across",
    "as_coarse",
    "displayed",
    "drawn_field",
    "drawn_region",
    "drawn_regions",
    "field_around",
    "to_frames",
]

View = tuple[slice, slice]
EVERYTHING: View = (slice(None), slice(None))
_MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
_STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)


def displayed(images: torch.Tensor, view: View = EVERYTHING) -> torch.Tensor:
    """Images (n, rows, columns) of one subject, or a part of each, in the display range of them all: 0 to 1."""
    low, high = np.percentile(images.numpy()[:, ::2, ::2], [0.5, 99.5])
    return ((images[:, view[0], view[1]] - float(low)) / max(float(high - low), 1e-6)).clamp_(0, 1)


def to_frames(images: torch.Tensor, image_size: int, view: View = EVERYTHING) -> torch.Tensor:
    """Display range (0.5 to 99.5 percentile), 8 bits, bicubic resizing, ImageNet normalisation: as for real volumes.

    Args:
        images: float32 (n, rows, columns) of one subject.
        view: The part that frames show; the display range is of the whole images.

    Returns:
        float32 (n, 3, S, S).
    """
    grey = displayed(images, view).mul_(255).floor_()
    size = (image_size, image_size)
    grey = F.interpolate(grey[:, None], size, mode="bicubic", align_corners=False, antialias=True)
    return (grey.clamp_(0, 255).round_() / 255 - _MEAN) / _STD


def across(labels: torch.Tensor, axis: int) -> torch.Tensor:
    """Volumes seen along another axis: as many slices as before, each with the slices of before as its rows.

    Args:
        labels: (n, K, side, side).
        axis: 1 or 2, of the volume: that of the rows or of the columns.

    Returns:
        Of the same shape; rows that lie between the slices of before repeat them.
    """
    depth, side = labels.shape[1:3]
    seen = torch.linspace(0, side - 1, depth).round().long()
    rows = torch.arange(side) * depth // side
    return labels.movedim(1 + axis, 1)[:, seen][:, :, rows]


def as_coarse(images: torch.Tensor, rows: int) -> torch.Tensor:
    """Images (n, side, side) as if they had been scanned with only this many rows, and grown again."""
    scanned = F.interpolate(images[:, None], (rows, images.shape[2]), mode="area")
    return F.interpolate(scanned, images.shape[1:], mode="bilinear", align_corners=False)[:, 0]


def drawn_region(rng: np.random.Generator, masks: Sequence[torch.Tensor]) -> Region:
    """The region of a class in labelled subjects as the engine shows it, wider or narrower and off by a little.

    Args:
        masks: bool (K, rows, columns) of the class, one for each subject.
    """
    return _off_by_a_little(rng, class_region([mask.numpy() for mask in masks], fill=rng.uniform(0.45, 0.75)))


def drawn_regions(rng: np.random.Generator, labelled: torch.Tensor, moved: Sequence[torch.Tensor]) -> list[Region]:
    """As :func:`drawn_region`, of one size around each: the class in a labelled subject, masks moved to another.

    Args:
        labelled: bool (K, rows, columns).
        moved: bool (K, rows, columns), at least one; where all are empty the labelled subject's region counts.
    """
    fill = rng.uniform(0.45, 0.75)
    around = [[labelled.numpy()], [mask.numpy() for mask in moved]]
    if not any(mask.any() for mask in around[1]):
        around[1] = around[0]
    sides = [stop - start for some in around for start, stop in [class_region(some, fill=fill).rows]]
    return [_off_by_a_little(rng, class_region(some, fill=fill, least=max(sides))) for some in around]


def _off_by_a_little(rng: np.random.Generator, region: Region) -> Region:
    bounds = []
    for start, stop in (region.rows, region.columns):
        moved = float(np.clip(start + 0.03 * (stop - start) * rng.normal(), 0.0, 1.0 - (stop - start)))
        bounds.append((moved, min(moved + stop - start, 1.0)))
    return Region(*bounds)


def field_around(rng: np.random.Generator, inside: torch.Tensor) -> tuple[np.ndarray, float]:
    """Centre and extent of a field of view in which a target (rows, columns) takes up 15 to 80 % of a side."""
    rows, columns = np.nonzero(inside.numpy())
    span = max(np.ptp(rows), np.ptp(columns)) / 128
    extent = float(np.clip(span / rng.uniform(0.15, 0.8), 0.4, 1.0))
    return np.array([rows.mean(), columns.mean()]) + rng.uniform(-0.5, 0.5, 2) * (extent - span) * 80, extent


def drawn_field(rng: np.random.Generator, centre: np.ndarray, extent: float) -> View:
    """A field of view: about ``extent`` of the 128-pixel plane's side around ``centre``."""
    size = np.clip(128 * extent * np.exp(0.06 * rng.normal(size=2)), 48, 128).astype(int)
    apart = 8 if rng.random() < 0.15 else 3  # fields of view that were chosen by other people
    start = np.clip((centre - size / 2 + apart * rng.normal(size=2)).astype(int), 0, 128 - size)
    return slice(start[0], start[0] + size[0]), slice(start[1], start[1] + size[1])

"""From which side frames show a volume: slices along any of its axes, and of each slice a region. Not in the paper.

Insertions into the stored slices all err alike: where a structure ends between two slices no frame shows it well. Seen
from another side the same end is an outline. So insertions take the three planes in turn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .region import Region, extent, part_of, region_around, region_side

if TYPE_CHECKING:
    from ..cases.geometry import Geometry

__all__ = ["FEWEST", "PLANES", "THICKEST", "View", "planes_worth", "slices_at_most", "view_around", "view_size"]

PLANES = (0, 1, 2)
"""Axes (K, J, I) along which slices are taken, in the order of the insertions that use them."""
THICKEST = 3.0
"""Of the longest to the shortest side of a voxel: beyond it, other planes than the stored one show too little."""
FEWEST = 8
"""Voxels along the shortest side of a volume: with fewer there is nothing to be seen from another side."""
_MARGIN = 0.65  # share of the slices that show the class, in the planes that are not the stored one
_SLICES_ACROSS = 32  # at least, of a volume that has fewer itself


def planes_worth(volumes: Iterable["Geometry"]) -> tuple[int, ...]:
    """Planes in which volumes are worth looking at: all three, or the stored one where any has thick slices or few."""
    across = all(max(each.spacing) <= THICKEST * min(each.spacing) and min(each.shape) >= FEWEST for each in volumes)
    return PLANES if across else PLANES[:1]


def slices_at_most(shape: tuple[int, int, int], plane: int) -> int:
    """How many slices of a volume of that shape (K, J, I) a view shows at most.

    In the stored plane every one; in the others, whose voxels are often small, about as many as in the stored one.
    """
    return shape[0] if plane == 0 else min(max(shape[0], _SLICES_ACROSS), shape[plane])


@dataclass(frozen=True)
class View:
    """What frames show of a volume (K, J, I).

    Args:
        plane: The axis along which slices are taken; rows and columns are the other two in their order.
        along: The part of that axis that is shown, (start, stop), 0 to 1.
        region: The part of each slice.

    Example:
        >>> View(1, (0.25, 0.75), Region((0.0, 1.0), (0.5, 1.0))).seen(np.zeros((8, 16, 10))).shape
        (8, 8, 5)
    """

    plane: int = 0
    along: tuple[float, float] = (0.0, 1.0)
    region: Region = field(default_factory=Region)

    @property
    def whole(self) -> bool:
        """The stored slices, all of each."""
        return self == View()

    @property
    def shares(self) -> list[list[float]]:
        """Start and stop along (k, j, i), rounded: for reports."""
        order = [self.region.rows, self.region.columns]
        order.insert(self.plane, self.along)
        return [[round(share, 4) for share in bounds] for bounds in order]

    def seen(self, volume: np.ndarray) -> np.ndarray:
        """The slices (..., n, rows, columns) of a volume (..., K, J, I) that frames show; no copy."""
        slices, rows, columns = self._indices(volume.shape[-3:])
        return np.moveaxis(volume, self.plane - 3, -3)[..., slices, rows, columns]

    def size(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Slices, rows and columns that are seen of a volume of that shape."""
        return tuple(len(range(index.start, index.stop, index.step or 1)) for index in self._indices(shape))

    def box(self, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        """The voxels (k, j, i) of a volume of that shape that are seen or lie between slices that are."""
        slices, *plane = self._indices(shape)
        last = range(slices.start, slices.stop, slices.step)[-1]
        plane.insert(self.plane, slice(slices.start, last + 1))
        return tuple(plane)

    def step(self, shape: tuple[int, int, int]) -> int:
        """From one slice that is seen of a volume of that shape to the next."""
        return self._indices(shape)[0].step

    def _indices(self, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        plane = [size for axis, size in enumerate(shape) if axis != self.plane]
        first, stop = part_of(self.along, shape[self.plane])
        step = -(-(stop - first) // slices_at_most(shape, self.plane))
        return slice(first, stop, step), *self.region.of(tuple(plane))


def view_size(masks: Sequence[np.ndarray], plane: int = 0) -> tuple[float, float]:
    """How much frames show of volumes so that the largest of these masks fits in with a margin.

    Args:
        masks: bool (K, J, I), each of its own size and of one orientation; any that are empty do not count.
        plane: The axis along which slices are taken.

    Returns:
        Shares of that axis (all of it for the stored slices) and of each slice's sides.
    """
    turned = [np.moveaxis(mask, plane, 0) for mask in masks]
    shown = [extent([mask], 0) for mask in turned if mask.any()]
    longest = max((stop - start for start, stop in shown), default=1.0)
    return 1.0 if plane == 0 else min(longest / _MARGIN, 1.0), region_side(turned)


def view_around(masks: Sequence[np.ndarray], size: tuple[float, float], plane: int = 0) -> View:
    """A view of a certain size around a class; around the volume's middle where no mask shows it.

    Args:
        masks: bool (K, J, I), each of its own size and of one orientation; laid on each other by relative position.
        size: From :func:`view_size`.
        plane: The axis along which slices are taken.
    """
    turned = [np.moveaxis(mask, plane, 0) for mask in masks]
    length, side = size
    start = float(np.clip(sum(extent(turned, 0) or (0.5, 0.5)) / 2 - length / 2, 0.0, 1.0 - length))
    return View(plane, (start, min(start + length, 1.0)), region_around(turned, side))

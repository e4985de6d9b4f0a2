"""The part of the plane that frames show: where a class lies, and a margin. Not in the paper.

SAM2 sees every frame at one size. Of a small structure in a wide field of view it sees a few pixels, and its memory a
fraction of a token; in a frame of the structure's own region it sees the structure as large as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CUT", "Region", "class_region", "extent", "part_of", "region_around", "region_side", "share_at_edge"]

FILL = 0.6
"""Share of the region's side that the largest of the labelled masks takes up."""
LEAST = 0.25
"""Of the plane's side: no region is smaller."""
CUT = 0.01
"""Share of a class's voxels at the edge of its region from which on it looks cut."""


@dataclass(frozen=True)
class Region:
    """A part of the plane, the same share of rows and columns: (start, stop) of each, 0 to 1.

    Example:
        >>> Region((0.25, 0.75), (0.5, 1.0)).of((100, 80))
        (slice(25, 75, None), slice(40, 80, None))
    """

    rows: tuple[float, float] = (0.0, 1.0)
    columns: tuple[float, float] = (0.0, 1.0)

    @property
    def whole(self) -> bool:
        """All of the plane."""
        return self == Region()

    @property
    def shares(self) -> list[float]:
        """Start and stop of the rows, then of the columns, rounded: for reports."""
        return [round(share, 4) for share in (*self.rows, *self.columns)]

    def of(self, plane: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a plane of this many pixels; at least one of each, and as many wherever the region is."""
        bounds = zip((self.rows, self.columns), plane, strict=True)
        rows, columns = (slice(*part_of(share, size)) for share, size in bounds)
        return rows, columns


def part_of(share: tuple[float, float], size: int) -> tuple[int, int]:
    """Start and stop of a share of an axis; how many lie between depends on the share's length only, at least one."""
    count = min(max(round((share[1] - share[0]) * size - 1e-6), 1), size)  # halves, however they were rounded before
    first = min(round(share[0] * size), size - count)
    return first, first + count


def extent(masks: Sequence[np.ndarray], axis: int) -> tuple[float, float] | None:
    """From where to where masks (K, J, I) reach along an axis together, as shares of it; None where all are empty."""
    others = tuple(other for other in range(3) if other != axis)
    shown = [(np.flatnonzero(mask.any(others)), mask.shape[axis]) for mask in masks if mask.any()]
    if not shown:
        return None
    return min(at[0] / size for at, size in shown), max((at[-1] + 1) / size for at, size in shown)


def class_region(masks: Sequence[np.ndarray], *, fill: float = FILL, least: float = LEAST) -> Region:
    """Where a class lies in labelled cases laid on each other by relative position, and a margin around it.

    Args:
        masks: bool (K, J, I), each of its own size and of one orientation; any that are empty do not count.
        fill: Share of the region's side that the class takes up along its longer extent.
        least: Of the plane's side: no region is smaller.

    Returns:
        A region that is within the plane and has its aspect; all of the plane where no mask shows the class.
    """
    extents = [extent(masks, axis) for axis in (1, 2)]
    if None in extents:
        return Region()
    longest = max(high - low for low, high in extents)
    return region_around(masks, float(np.clip(longest / fill, least, 1.0)))


def region_around(masks: Sequence[np.ndarray], side: float) -> Region:
    """A region of that side around a class, within the plane; around the plane's middle where no mask shows the class.

    Args:
        masks: bool (K, J, I), each of its own size and of one orientation; laid on each other by relative position.
        side: As a share of the plane's.
    """
    middles = [sum(extent(masks, axis) or (0.5, 0.5)) / 2 for axis in (1, 2)]
    starts = [float(np.clip(middle - side / 2, 0.0, 1.0 - side)) for middle in middles]
    rows, columns = ((start, min(start + side, 1.0)) for start in starts)
    return Region(rows, columns)


def region_side(masks: Sequence[np.ndarray], *, fill: float = FILL, least: float = LEAST) -> float:
    """The side of regions in which the largest of these masks takes up ``fill`` of it; 1 where all are empty.

    Args:
        masks: bool (K, J, I), each of its own size and of one orientation; any that are empty do not count.
        fill: Share of the region's side that the class takes up along its longer extent.
        least: Of the plane's side: no region is smaller.
    """
    extents = [extent([mask], axis) for mask in masks if mask.any() for axis in (1, 2)]
    return float(np.clip(max((high - low for low, high in extents), default=fill) / fill, least, 1.0))


def share_at_edge(mask: np.ndarray, region: Region) -> float:
    """How much of a class lies at the edge of its region, beyond which there may be more; the plane's own edge is none.

    Args:
        mask: bool (K, J, I), what was found.
        region: What the frames showed.

    Returns:
        Share of its voxels, 0 where there are none.
    """
    edge = np.zeros(mask.shape[1:], bool)
    for axis, some in enumerate(region.of(mask.shape[1:])):
        lines = np.moveaxis(edge, axis, 0)
        if some.start > 0:
            lines[some.start] = True
        if some.stop < len(lines):
            lines[some.stop - 1] = True
    return float(mask[:, edge].sum() / max(mask.sum(), 1))

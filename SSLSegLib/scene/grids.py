"""The same voxels in another order: Slicer reverses slices when it loads a left-handed image."""

import numpy as np

from SSLSegLib.cases.geometry import Geometry

__all__ = ["in_grid_of"]


def in_grid_of(array: np.ndarray, geometry: Geometry, target: Geometry) -> np.ndarray | None:
    """The voxels of one grid in the order of another that has the same voxels, axes reversed or exchanged.

    Args:
        array: (..., K, J, I), the last three axes in ``geometry``.
        geometry: The grid of the array.
        target: The wished grid.

    Returns:
        The reordered view, or None where the grids have other voxels (only resampling would help then).

    Example:
        >>> upside_down = Geometry((2, 1, 1), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 1], [0, 0, 0, 1]])
        >>> in_grid_of(np.array([[[1]], [[2]]]), Geometry((2, 1, 1), np.eye(4)), upside_down).ravel().tolist()
        [2, 1]
    """
    if geometry.matches(target):
        return array
    between = np.linalg.inv(target.ijk_to_ras) @ geometry.ijk_to_ras  # from this grid's (i, j, k) to the target's
    signs = np.round(between[:3, :3])
    if not np.array_equal(np.abs(signs).sum(axis=0), [1, 1, 1]) or not np.array_equal(signs @ signs.T, np.eye(3)):
        return None
    source_axis = np.abs(signs).argmax(axis=1)  # of each target axis, both counted i, j, k
    reversed_axis = signs.sum(axis=1) < 0
    moved = np.eye(4)
    moved[:3, :3] = signs
    moved[:3, 3] = np.where(reversed_axis, np.array(target.shape[::-1]) - 1, 0)
    shape = tuple(geometry.shape[2 - source_axis[2 - axis]] for axis in range(3))
    if not Geometry(shape, geometry.ijk_to_ras @ np.linalg.inv(moved)).matches(target):
        return None
    leading = array.ndim - 3
    order = [*range(leading), *(leading + 2 - int(source_axis[2 - axis]) for axis in range(3))]
    steps = [slice(None, None, -1 if reversed_axis[2 - axis] else 1) for axis in range(3)]
    return array.transpose(order)[..., *steps]

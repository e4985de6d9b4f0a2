"""Voxels are put into another order only where they are the same voxels."""

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from scene_examples import OBLIQUE, grid

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.scene.grids import in_grid_of


def test_every_order_of_axes_and_directions_shows_each_voxel_where_it_was() -> None:
    """All 48 of them, against the RAS position of every voxel."""
    source = grid(OBLIQUE, shape=(2, 3, 4))
    array = np.arange(24).reshape(2, 3, 4)
    value_at = {tuple(np.round(source.ijk_to_ras @ [i, j, k, 1], 6)): array[k, j, i] for k, j, i in np.ndindex(2, 3, 4)}
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            sizes = [source.shape[::-1][axis] for axis in order]  # of the target's i, j, k
            moved = np.zeros((4, 4))
            moved[3, 3] = 1
            for target_axis, (source_axis, sign) in enumerate(zip(order, signs, strict=True)):
                moved[source_axis, target_axis] = sign
                moved[source_axis, 3] = 0 if sign > 0 else sizes[target_axis] - 1
            target = Geometry(tuple(sizes[::-1]), source.ijk_to_ras @ moved)
            found = in_grid_of(array, source, target)
            assert found.shape == target.shape
            for k, j, i in np.ndindex(target.shape):
                assert found[k, j, i] == value_at[tuple(np.round(target.ijk_to_ras @ [i, j, k, 1], 6))]


def test_other_voxels_are_refused() -> None:
    array = np.zeros((5, 7, 9))
    shifted = grid().ijk_to_ras.copy()
    shifted[0, 3] += 0.35
    assert in_grid_of(array, grid(), Geometry((5, 7, 9), shifted)) is None
    assert in_grid_of(array, grid(), grid(OBLIQUE)) is None
    assert in_grid_of(array, grid(), grid(spacing=(0.7, 1.3, 2.2))) is None
    assert in_grid_of(array, grid(), grid(shape=(5, 7, 8))) is None

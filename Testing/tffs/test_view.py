"""From which side frames show a volume, and how what was found is put back."""

import numpy as np
import pytest
import torch

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.tffs.ensemble import ProbabilitySums, joined
from SSLSegLib.tffs.region import Region, region_side
from SSLSegLib.tffs.view import View, planes_worth, slices_at_most, view_around, view_size

SHAPE = (12, 90, 60)
VIEWS = [
    View(),
    View(0, region=Region((0.1, 0.6), (0.5, 1.0))),
    View(1, (0.2, 0.9), Region((0.0, 1.0), (0.25, 0.75))),
    View(2, (0.0, 0.5), Region((0.25, 0.75), (0.5, 1.0))),
]


def sums_of(view, volume, count=1):
    seen = torch.from_numpy(np.ascontiguousarray(view.seen(volume))).float()
    sums = ProbabilitySums(seen.shape[0], tuple(seen.shape[1:]))
    for _ in range(count):
        sums.add_slices(list(range(len(seen))), seen)
    sums.count = count
    return sums


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_seen_is_put_back_where_it_was_and_linear_between(view):
    """A volume that is linear along every axis comes back exactly, whatever slices are left out."""
    volume = np.einsum("k,j,i->kji", *(np.linspace(0.2, 0.9, size) for size in SHAPE)).astype(np.float32)
    assert view.seen(volume).shape == view.size(SHAPE)
    mean, variance = joined([(view, sums_of(view, volume))], SHAPE)
    box = view.box(SHAPE)
    np.testing.assert_allclose(mean[box], volume[box], atol=1e-5)
    mean[box] = 0
    assert not mean.any()
    assert variance.max() < 1e-2


def test_each_voxel_is_the_mean_of_the_runs_that_saw_it():
    one, other = View(0, region=Region((0.0, 0.5), (0.0, 1.0))), View(2, (0.0, 0.5))
    low, high = np.full(SHAPE, 0.2, np.float32), np.full(SHAPE, 0.8, np.float32)
    mean, variance = joined([(one, sums_of(one, low, 3)), (other, sums_of(other, high))], SHAPE)
    assert mean[0, 0, 0] == pytest.approx((3 * 0.2 + 0.8) / 4)
    assert variance[0, 0, 0] == pytest.approx((3 * 0.04 + 0.64) / 4 - 0.35**2)
    assert mean[0, 0, -1] == pytest.approx(0.2)
    assert mean[0, -1, 0] == pytest.approx(0.8)
    assert mean[0, -1, -1] == variance[0, 0, -1] == 0


def test_across_the_volume_about_as_many_slices_are_seen_as_it_has():
    assert [View(plane).size((40, 200, 100))[0] for plane in (0, 1, 2)] == [40, 40, 34]  # every, each fifth, each third
    assert View(1).size((4, 90, 60)) == (30, 4, 60), "thin volumes are seen in more slices than they have"
    assert View(1).size((4, 20, 60)) == (20, 4, 60)
    for plane in (0, 1, 2):
        assert View(plane).size((40, 200, 100))[0] <= slices_at_most((40, 200, 100), plane)


def test_views_of_all_cases_are_as_large_as_the_largest_mask_needs_and_have_the_class_in_their_middle():
    masks = np.zeros((2, *SHAPE), bool)
    masks[0, 3:6, 30:50, 20:30] = True
    masks[1, 5:9, 40:70, 24:32] = True
    assert view_size(list(masks)) == (1.0, region_side(list(masks))), "the stored slices are all shown"
    size = view_size(list(masks), 1)
    assert size == (pytest.approx(30 / 90 / 0.65), pytest.approx(4 / 12 / 0.6))
    for mask, rows, middle in zip(masks, ((30, 50), (40, 70)), (40, 55), strict=True):
        view = view_around([mask], size, 1)
        assert np.mean(view.along) == pytest.approx(middle / 90)
        assert np.ptp(view.along) == pytest.approx(size[0])
        assert np.mean(view.region.rows) == pytest.approx({40: 4.5, 55: 7}[middle] / 12)
        assert view.seen(mask[None]).sum() == mask[:, rows[0] : rows[1]][:, :: view.step(SHAPE)].sum()
    assert view_around([], size, 1).size(SHAPE) == view_around([masks[0]], size, 1).size(SHAPE)
    assert view_size([np.zeros(SHAPE, bool)], 2) == (1.0, 1.0)
    assert view_around([np.zeros(SHAPE, bool)], (1.0, 1.0), 2) == View(2)


def test_views_of_one_size_show_as_many_slices_rows_and_columns_wherever_they_are():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(rng.uniform(0.1, 1.0, 2))
        mask = np.zeros(SHAPE, bool)
        mask[tuple(rng.integers(0, SHAPE))] = True
        for plane in (0, 1, 2):
            expected = view_around([], size, plane).size((37, 91, 61))
            assert view_around([mask], size, plane).size((37, 91, 61)) == expected


def test_shares_are_told_along_the_axes_of_the_volume():
    assert VIEWS[2].shares == [[0.0, 1.0], [0.2, 0.9], [0.25, 0.75]]
    assert VIEWS[3].shares == [[0.25, 0.75], [0.5, 1.0], [0.0, 0.5]]


def test_where_any_volume_has_thick_slices_or_few_only_the_stored_ones_are_looked_at():
    def volume(slices, k, j, i):
        return Geometry((slices, 20, 20), np.diag([i, j, k, 1.0]))

    thin = volume(8, 1.0, 1.0, 1.0)
    assert planes_worth([thin, volume(8, 3.0, 1.0, 1.5)]) == (0, 1, 2)
    assert planes_worth([thin, volume(8, 3.1, 1.0, 1.5)]) == (0,)
    assert planes_worth([volume(8, 1.0, 4.0, 1.0)]) == (0,)
    assert planes_worth([thin, volume(7, 1.0, 1.0, 1.0)]) == (0,)

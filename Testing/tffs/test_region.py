"""What frames show of the plane where the place of a class is told."""

import numpy as np
import pytest

from SSLSegLib.tffs.region import CUT, FILL, LEAST, Region, class_region, region_around, region_side, share_at_edge


def mask(rows, columns, shape=(6, 100, 80)):
    drawn = np.zeros(shape, bool)
    drawn[2:4, slice(*rows), slice(*columns)] = True
    return drawn


def test_a_region_holds_the_class_of_all_labelled_cases_in_its_middle():
    region = class_region([mask((40, 50), (40, 48)), mask((50, 64), (40, 44))])
    assert np.mean(region.rows) == pytest.approx(0.52)
    assert np.mean(region.columns) == pytest.approx(0.55)
    assert np.ptp(region.rows) == pytest.approx(0.24 / FILL)  # rows 40 to 63 of 100
    assert np.ptp(region.columns) == pytest.approx(np.ptp(region.rows))  # the plane's own aspect


def test_labelled_cases_of_other_sizes_are_compared_by_relative_position():
    small = mask((20, 25), (20, 24), (3 + 3, 50, 40))
    assert class_region([small]) == class_region([mask((40, 50), (40, 48))])


def test_a_region_stays_in_the_plane_and_keeps_its_size():
    region = class_region([mask((0, 30), (70, 80))])
    assert region.rows == (0.0, 0.5)
    assert region.columns == (0.5, 1.0)


def test_a_small_class_is_not_magnified_without_end():
    region = class_region([mask((50, 52), (40, 41))])
    assert np.ptp(region.rows) == pytest.approx(LEAST)


@pytest.mark.parametrize(
    "masks", [[mask((0, 100), (0, 80))], [mask((10, 90), (30, 40))], [np.zeros((4, 9, 9), bool)], []]
)
def test_where_the_class_is_large_or_nowhere_all_of_the_plane_is_shown(masks):
    assert class_region(masks).whole


def test_one_side_is_for_the_largest_mask_and_regions_of_it_lie_around_each_class():
    one, other = mask((40, 50), (40, 48)), mask((70, 94), (60, 64))
    assert region_side([one, other, np.zeros((6, 9, 9), bool)]) == pytest.approx(0.24 / FILL)
    assert region_side([one]) == LEAST
    assert region_side([]) == region_side([np.zeros((6, 9, 9), bool)]) == 1.0
    around = region_around([one], 0.4)
    assert around.rows == (pytest.approx(0.25), pytest.approx(0.65))
    assert around.columns == (pytest.approx(0.35), pytest.approx(0.75))
    assert region_around([other], 0.4).rows == (pytest.approx(0.6), 1.0), "within the plane"
    assert region_around([], 0.4) == region_around([np.zeros((6, 9, 9), bool)], 0.4)
    np.testing.assert_allclose(region_around([], 0.4).rows, (0.3, 0.7))


def test_rows_and_columns_are_never_none():
    assert Region((0.99, 1.0), (0.0, 0.01)).of((4, 4)) == (slice(3, 4), slice(0, 1))
    assert Region().of((7, 5)) == (slice(0, 7), slice(0, 5))


def test_what_is_cut_by_the_region_is_known_from_what_ends_with_the_plane():
    region = Region((0.0, 0.5), (0.25, 0.75))  # rows 0 to 49 of 100, columns 20 to 59 of 80
    assert share_at_edge(mask((10, 50), (30, 40)), region) == pytest.approx(1 / 40)
    assert share_at_edge(mask((10, 20), (20, 60)), region) == pytest.approx(2 / 40)
    assert share_at_edge(mask((0, 49), (21, 59)), region) == 0  # the first row is the plane's own
    assert share_at_edge(mask((0, 0), (0, 0)), region) == 0
    assert share_at_edge(mask((0, 100), (0, 80)), Region()) == 0
    assert share_at_edge(mask((10, 50), (30, 40)), region) > CUT

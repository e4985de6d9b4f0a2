"""Insertion positions: drawn without replacement, by name."""

import pytest

from SSLSegLib.tffs.positions import insertion_positions


def test_positions_are_distinct_ascending_and_inside():
    for seed in range(20):
        positions = insertion_positions(seed, "a", "b", "liver", 12, 5)
        assert positions == sorted(set(positions))
        assert len(positions) == 5
        assert positions[0] >= 0
        assert positions[-1] < 12


def test_every_position_can_be_drawn_and_the_end_cannot():
    """Before slice 0 is possible, after the last slice is not: as in the official code."""
    drawn = {k for seed in range(300) for k in insertion_positions(seed, "a", "b", "liver", 6, 2)}
    assert drawn == set(range(6))


def test_with_fewer_slices_than_insertions_every_position_is_used():
    assert insertion_positions(1, "a", "b", "liver", 3, 5) == [0, 1, 2]
    assert insertion_positions(1, "a", "b", "liver", 5, 5) == [0, 1, 2, 3, 4]


def test_the_draw_depends_on_each_name_and_on_nothing_else():
    first = insertion_positions(1, "a", "b", "liver", 1000, 5)
    others = [(2, "a", "b", "liver"), (1, "c", "b", "liver"), (1, "a", "c", "liver"), (1, "a", "b", "spleen")]
    for names in others:
        assert insertion_positions(*names, 1000, 5) != first
    assert insertion_positions(1, "a", "b", "liver", 1000, 5) == first


def test_these_positions_stay_the_same_between_versions():
    """Results are reproduced from a manifest by its seed: a change here changes everyone's results."""
    assert insertion_positions(42, "case_001", "case_007", "liver", 40, 5) == [1, 2, 9, 24, 37]


def test_nonsense_is_refused():
    for slices, insertions in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="at least one"):
            insertion_positions(1, "a", "b", "liver", slices, insertions)

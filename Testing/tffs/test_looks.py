"""The order of insertions of which the second half is told what the first found."""

import numpy as np
import pytest

from SSLSegLib.tffs.looks import Insertions, looks, sharpened
from SSLSegLib.tffs.view import PLANES


@pytest.mark.parametrize("labelled", [1, 2, 3, 4])
@pytest.mark.parametrize("insertions", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("planes", [(0,), PLANES])
@pytest.mark.parametrize("told", [True, False])
def test_every_insertion_of_every_case_is_made_once_and_each_case_takes_the_planes_in_turn(
    planes, insertions, labelled, told
):
    planes = planes[:insertions]
    found = looks(planes, insertions, labelled, told=told)
    assert len(found) == (2 if told and insertions > 1 else 1)
    made = [(each.labelled, number) for some in found for each in some for number in each.numbers]
    assert sorted(made) == [(case, number) for case in range(labelled) for number in range(insertions)]
    for case in range(labelled):
        taken = [each.plane for some in found for each in some if each.labelled == case for _ in each.numbers]
        assert max(map(taken.count, planes)) - min(map(taken.count, planes)) <= 1
    if planes == PLANES and labelled > 2:
        assert all({each.plane for each in some} == set(planes) for some in found), "each look is from all sides"


def test_the_second_look_has_two_insertions_of_five():
    first, second = looks((0,), 5, 1, told=True)
    assert [each.numbers for each in (*first, *second)] == [(0, 1, 2), (3, 4)]


def test_where_slices_are_few_the_insertions_are_as_many_as_positions():
    assert Insertions(0, 0, (1, 3, 4)).of([7, 5, 2, 0]) == [5, 0]


def test_what_is_told_is_more_decided_than_what_was_found_and_no_larger():
    found = np.linspace(0, 1, 11, dtype=np.float32)
    told = sharpened(found)
    assert told.dtype == np.float32
    np.testing.assert_array_equal(told > 0.5, found > 0.5)
    assert (told[1:5] < found[1:5]).all()
    assert (told[6:10] > found[6:10]).all()
    np.testing.assert_allclose(told[[0, 5, 10]], [0, 0.5, 1])

"""The order of insertions that tell each other what they found."""

import numpy as np
import pytest

from SSLSegLib.tffs.ensemble import ProbabilitySums
from SSLSegLib.tffs.region import Region
from SSLSegLib.tffs.turns import REACH, Findings, Turn, turns
from SSLSegLib.tffs.view import PLANES, View

SHAPE = (8, 12, 10)


@pytest.mark.parametrize("labelled", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("insertions", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("planes", [(0,), PLANES])
def test_every_insertion_of_every_case_has_one_turn_and_two_thirds_of_them_count(planes, insertions, labelled):
    planes = planes[:insertions]
    order = turns(planes, insertions, labelled, told=True)
    made = {(turn.labelled, number) for turn in order for number in range(insertions)[turn.insertions]}
    assert len(made) == len(order) == insertions * labelled
    counted = [turn.counts for turn in order]
    assert counted == sorted(counted), "those that do not count come first"
    assert sum(counted) >= 2 / 3 * len(order)
    assert sum(counted) >= len(order) - REACH
    for case in range(labelled):
        taken = [turn.plane for turn in order if turn.labelled == case]
        assert len(set(taken)) == len(planes), "each case is seen from all sides"
        assert max(map(taken.count, planes)) - min(map(taken.count, planes)) <= 1
    if len(planes) * labelled > 1 < len(order):
        assert all(len({turn.plane for turn in order[n : n + 3]}) >= 2 for n in range(len(order) - 3)) or planes == (0,)


def test_insertions_that_are_told_nothing_are_made_together_and_all_count():
    assert turns((0,), 5, 2, told=False) == [Turn(0, 0, slice(None)), Turn(1, 0, slice(None))]


def found(view, value):
    slices, *in_plane = view.size(SHAPE)
    sums = ProbabilitySums(slices, tuple(in_plane))
    sums.total += value
    sums.count = 1
    return view, sums


def test_the_first_turn_is_told_the_labelled_cases_the_next_half_of_it_and_later_ones_what_was_found():
    view, aside = View(1, region=Region((0.0, 0.5), (0.0, 1.0))), View(2)
    prior = np.full(view.size(SHAPE), 0.2, np.float32)
    findings = Findings(SHAPE)
    np.testing.assert_array_equal(findings.told(prior, view), prior)
    findings.add(*found(View(), 0.6))
    np.testing.assert_allclose(findings.told(prior, view), 0.4, atol=1e-6)
    for some, value in ((view, 0.0), (aside, 0.0), (View(), 0.0), (view, 0.0)):
        findings.add(*found(some, value))
    np.testing.assert_allclose(findings.told(prior, view), (0.2 + 0.6 / 5) / 2, atol=1e-6)
    findings.add(*found(aside, 0.0))
    np.testing.assert_allclose(findings.told(prior, view), 0.6 / 6, atol=1e-6)
    findings.add(*found(view, 0.9))  # takes the place of the first
    np.testing.assert_allclose(findings.told(prior, view), 0.9 / 6, atol=1e-6)


def test_what_no_frame_saw_is_told_to_be_empty():
    seen, findings = View(0, region=Region((0.0, 0.5), (0.0, 1.0))), Findings(SHAPE)
    for _ in range(REACH + 3):
        findings.add(*found(seen, 0.7))
    told = findings.told(np.ones(SHAPE, np.float32), View())
    np.testing.assert_allclose(told[:, :6], 0.7, atol=1e-6)
    assert told[:, 6:].max() == 0

"""How much labels changed, and when that is enough."""

import numpy as np
import pytest
from medpy.metric.binary import dc

from SSLSegLib.selftraining.agreement import compare_labels, mean_agreement, why_stop


def _two(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (4, 9, 9)).astype(np.uint8), rng.integers(0, 3, (4, 9, 9)).astype(np.uint8)


def test_dice_of_a_case_is_the_mean_over_classes_of_medpys():
    old, new = _two()
    assert compare_labels(old, new, 2).dice == pytest.approx(np.mean([dc(old == c, new == c) for c in (1, 2)]))


def test_a_class_that_neither_label_has_does_not_count():
    old = np.zeros((2, 4, 4), np.uint8)
    old[0] = 1
    assert compare_labels(old, old, 3).dice == 1.0


def test_two_empty_labels_have_no_dice_and_are_left_out_of_the_mean():
    empty = np.zeros((2, 4, 4), np.uint8)
    full = empty + 1
    none = compare_labels(empty, empty, 1)
    assert none.dice is None
    assert not none.flagged
    assert mean_agreement([none, compare_labels(full, full, 1)]) == 1.0


def test_cases_that_changed_much_are_flagged():
    old = np.zeros((1, 10, 10), np.uint8)
    old[0, :5] = 1
    grown = old.copy()
    grown[0, 5:7] = 1
    assert compare_labels(old, grown, 1).flagged  # 40 % more volume
    slightly = old.copy()
    slightly[0, 5, :4] = 1
    assert not compare_labels(old, slightly, 1).flagged


@pytest.mark.parametrize(
    ("agreements", "reason"),
    [
        ([0.90], None),
        ([0.90, 0.95], None),
        ([0.985], "agreement"),
        ([0.90, 0.902], "gain"),
        ([0.90, 0.85], "gain"),
        ([0.90, 0.93, 0.96], "limit"),
        ([0.90, 0.93, 0.99], "agreement"),
    ],
)
def test_rounds_stop_by_agreement_by_gain_or_at_the_limit(agreements, reason):
    assert why_stop(agreements, limit=3, stop_agreement=0.98, stop_gain=0.005) == reason

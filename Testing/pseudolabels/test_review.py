"""Decisions survive, are bound to what was looked at, and are refused where there is nothing to decide on."""

import json

import pytest

from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels.label import LabelScores
from SSLSegLib.pseudolabels.ranking import rank_by_uncertainty
from SSLSegLib.pseudolabels.review import CORRECTED_LABEL, Review, ReviewState, load_review, save_review


@pytest.fixture
def result(tmp_path):
    folder = tmp_path / "case_001"
    folder.mkdir()
    (folder / "labels.nii.gz").write_bytes(b"a label map")
    return folder


def test_without_a_decision_a_case_is_unreviewed(result):
    assert load_review(result) == Review(state=ReviewState.UNREVIEWED)


@pytest.mark.parametrize("state", ["accepted", "rejected"])
def test_a_decision_is_read_back_as_it_was_written(result, state):
    saved = save_review(result, state, note="apex cut off")
    assert load_review(result) == saved
    assert saved.state == state
    assert saved.note == "apex cut off"
    assert saved.date
    assert not saved.is_stale(result)


def test_a_decision_is_stale_once_the_label_map_changed(result):
    review = save_review(result, ReviewState.ACCEPTED)
    (result / "labels.nii.gz").write_bytes(b"another label map")
    assert review.is_stale(result)
    assert not Review().is_stale(result)


def test_corrected_needs_the_corrected_label_map(result):
    with pytest.raises(CaseError, match=r"case_001.*corrected"):
        save_review(result, ReviewState.CORRECTED)
    (result / CORRECTED_LABEL).write_bytes(b"by hand")
    assert save_review(result, ReviewState.CORRECTED).state is ReviewState.CORRECTED


def test_nothing_can_be_decided_without_a_label_map(tmp_path):
    with pytest.raises(CaseError, match="Run the job"):
        save_review(tmp_path / "case_002", ReviewState.ACCEPTED)


@pytest.mark.parametrize("content", ["{", json.dumps({"schema_version": 9, "state": "accepted"})])
def test_a_damaged_or_newer_review_is_an_error_that_names_the_case(result, content):
    (result / "review.json").write_text(content)
    with pytest.raises(CaseError, match=r"case_001.*review"):
        load_review(result)


def scores(mean_entropy: float, empty: bool = False, **expected: float) -> LabelScores:
    return LabelScores(mean_entropy, 0.1, 3, {"atrium": 0.0 if empty else 40.0}, empty, expected)


def test_empty_labels_lead_the_ranking_and_the_rest_follows_by_the_dice_to_expect():
    order = rank_by_uncertainty(
        {
            "sure": scores(0.3, atrium=0.95, wall=0.91),
            "b": scores(0.1, atrium=0.95, wall=0.55),
            "a": scores(0.2, atrium=0.75),
            "nothing": scores(0.01, empty=True),
            "worst": scores(0.05, atrium=0.4, wall=0.9),
        }
    )
    assert order == ["nothing", "worst", "a", "b", "sure"]


def test_where_an_earlier_version_has_told_no_dice_to_expect_all_fall_by_entropy():
    assert rank_by_uncertainty({"old": scores(0.2), "new": scores(0.1, atrium=0.3)}) == ["old", "new"]
    order = rank_by_uncertainty(
        {"sure": scores(0.05), "b": scores(0.3), "a": scores(0.3), "nothing": scores(0.01, empty=True)}
    )
    assert order == ["nothing", "a", "b", "sure"]

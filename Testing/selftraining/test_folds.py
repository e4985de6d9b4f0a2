"""Who is trained on and who is predicted in each fold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from SSLSegLib.selftraining.folds import assign_folds, splits

NAMES = st.lists(st.sampled_from([f"u{n}" for n in range(30)]), unique=True, min_size=1)


@given(names=NAMES, folds=st.integers(1, 7), seed=st.integers(0, 99))
def test_each_unlabelled_case_is_validated_once_and_no_labelled_case_ever(names, folds, seed):
    found = splits(assign_folds(names, folds, seed), ["a", "b"], names)
    validated = [case for split in found for case in split["val"]]
    assert sorted(validated) == sorted(names)
    assert len(found) == min(folds, len(names))


@given(names=NAMES, folds=st.integers(1, 7), seed=st.integers(0, 99))
def test_each_training_set_holds_all_labelled_cases_and_the_other_folds(names, folds, seed):
    for split in splits(assign_folds(names, folds, seed), ["a", "b"], names):
        assert {"a", "b"} <= set(split["train"])
        assert set(split["train"]) - {"a", "b"} == set(names) - set(split["val"])


@given(names=NAMES, folds=st.integers(1, 7))
def test_folds_differ_by_one_case_at_most(names, folds):
    sizes = [len(split["val"]) for split in splits(assign_folds(names, folds, 42), ["a"], names)]
    assert max(sizes) - min(sizes) <= 1


def test_fewer_than_five_unlabelled_cases_make_fewer_folds():
    assert set(assign_folds(["x", "y", "z"], 5, 42).values()) == {0, 1, 2}


def test_the_fold_of_a_case_does_not_depend_on_the_order_of_the_cases():
    names = [f"case{n}" for n in range(11)]
    assert assign_folds(names, 5, 42) == assign_folds(names[::-1], 5, 42)


def test_another_seed_deals_the_cases_otherwise():
    names = [f"case{n}" for n in range(11)]
    assert assign_folds(names, 5, 1) != assign_folds(names, 5, 2)


def test_empty_and_rejected_cases_leave_training_but_are_still_predicted():
    names = [f"u{n}" for n in range(6)]
    found = splits(assign_folds(names, 3, 42), ["a"], [name for name in names if name not in ("u1", "u4")])
    assert not any({"u1", "u4"} & set(split["train"]) for split in found)
    assert sorted(case for split in found for case in split["val"]) == names


def test_corrected_cases_are_trained_on_in_every_fold_and_not_predicted():
    names = [f"u{n}" for n in range(6)]
    found = splits(assign_folds(names, 3, 42), ["a", "u2"], names)
    assert all("u2" in split["train"] and "u2" not in split["val"] for split in found)


def test_a_case_keeps_its_fold_when_another_is_corrected():
    names = [f"u{n}" for n in range(6)]
    folds = assign_folds(names, 3, 42)
    before, after = splits(folds, ["a"], names), splits(folds, ["a", "u2"], names)
    for one, other in zip(before, after, strict=True):
        assert [case for case in one["val"] if case != "u2"] == other["val"]


@pytest.mark.parametrize("folds", [1, 5])
def test_a_single_unlabelled_case_is_predicted_from_the_labelled_ones_alone(folds):
    assert splits(assign_folds(["u"], folds, 42), ["a", "b"], ["u"]) == [{"train": ["a", "b"], "val": ["u"]}]

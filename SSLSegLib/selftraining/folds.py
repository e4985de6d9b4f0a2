"""Folds of the unlabelled cases (paper 1, section FSL-nnUNet).

"The validation set is from one fold of the unlabelled dataset, and the remaining part of the unlabelled dataset along
with the labelled dataset form the training set": a case is always predicted by a network that has not seen its label,
and no labelled case is ever held out.
"""

from collections.abc import Collection, Iterable, Mapping

from SSLSegLib.seeds import named_seed

__all__ = ["Split", "assign_folds", "splits"]

Split = dict[str, list[str]]
"""``{"train": [...], "val": [...]}``, as nnU-Net's ``splits_final.json`` lists them."""


def assign_folds(unlabelled: Iterable[str], folds: int, seed: int) -> dict[str, int]:
    """Deal the unlabelled cases to folds, in an order that is drawn by name.

    Args:
        unlabelled: Case ids, in any order.
        folds: Number of folds wanted; no more are made than there are cases.
        seed: The run's seed.

    Returns:
        Case id -> fold number from 0. Folds differ in size by one case at most.

    Example:
        >>> sorted(assign_folds(["a", "b", "c"], folds=5, seed=42).values())
        [0, 1, 2]
    """
    drawn = sorted(set(unlabelled), key=lambda case: (named_seed(seed, "fold", case), case))
    count = min(folds, len(drawn))
    return {case: place % count for place, case in enumerate(drawn)}


def splits(assignment: Mapping[str, int], labelled: Collection[str], trainable: Collection[str]) -> list[Split]:
    """The training and validation cases of every fold of a round.

    Args:
        assignment: Case id -> fold, the same in all rounds.
        labelled: Cases with a label by a person: the labelled ones and those that were corrected since.
        trainable: Unlabelled cases whose pseudo-label is fit for training. Cases with an empty, missing or rejected
            pseudo-label are not among them; they stay in validation, so that they get a fresh prediction.

    Returns:
        One split per fold, in fold order. The list of validation cases is empty where all cases of a fold were
        corrected; such a fold has nothing to predict and is not trained.
    """
    by_person = set(labelled)
    held_out = [case for case in sorted(assignment) if case not in by_person]
    rest = [case for case in held_out if case in set(trainable)]
    return [
        {
            "train": sorted(by_person) + [case for case in rest if assignment[case] != fold],
            "val": [case for case in held_out if assignment[case] == fold],
        }
        for fold in range(max(assignment.values(), default=-1) + 1)
    ]

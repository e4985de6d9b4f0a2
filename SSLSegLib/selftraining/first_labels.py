"""What the first round is trained on: the pseudo-labels as they were given, or what is better on labelled cases.

Algorithm 1 begins with the pseudo-labels. Where those are poor, a network trained on the few labelled cases alone is
better than all rounds that follow, and the mean of both probabilities better than either, since their errors differ.
Which of the three is best can be known before any training on pseudo-labels, without a label beyond those at hand: the
networks of nnU-Net's own cross-validation over the labelled cases and the method of the pseudo-labels both segment
every labelled case without having seen its label. The choice is made class by class. Labelled cases are few, and
networks trained on so few fail on the first image that is unlike them: the given stay unless they are worse beyond
doubt, by a paired t-test over at least three cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SSLSegLib.cases.cohort import Case
from SSLSegLib.cases.reading import read_geometry, read_label
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.files import write_text
from SSLSegLib.pseudolabels.label import PseudoLabel
from SSLSegLib.pseudolabels.merging import merge_classes
from SSLSegLib.pseudolabels.storage import is_complete, load_pseudo_label
from SSLSegLib.selftraining.agreement import dice_by_class
from SSLSegLib.selftraining.choice import PARTS, Choice, read_choice
from SSLSegLib.selftraining.dataset import ClassValues
from SSLSegLib.selftraining.folds import assign_folds, splits
from SSLSegLib.selftraining.report import RoundReport, RoundRoles
from SSLSegLib.selftraining.run import Run, TrainingSet

__all__ = ["DOUBT", "FEWEST", "MOST_FOLDS", "cross_validate", "first_labels", "mixed_labels"]

MOST_FOLDS = 5
"""Folds of the cross-validation over the labelled cases; fewer where there are fewer cases."""

FEWEST = 3
"""Labelled cases to choose by. On generated scans with two a gain of 0.02 on both was a loss of 0.04 on the others."""

DOUBT = 0.1
"""One-sided p of the paired t-test below which other labels are better than the given ones beyond doubt."""


def first_labels(run: Run) -> dict[str, Path]:
    """Case -> label file of the first round, in nnU-Net's values.

    Where the options ask for the ``best``, networks are cross-validated on the labelled cases (in ``cv``), the choice
    is written down (``first/choice.json``) and made once; it takes a training with as many folds as labelled cases,
    five at most. With two labelled cases the figures are written down but nothing is chosen by them (:data:`FEWEST`).
    Without ``held_out`` pseudo-labels, or with one labelled case, the pseudo-labels are taken as given at once.

    Raises:
        SelfTrainingError: A training fails, or the choice that was written down is damaged.
        CaseError: A pseudo-label is damaged.
    """
    labels = run.given_labels()
    if run.options.first_labels == "given" or run.held_out is None or len(run.cohort.labelled) < 2:
        return labels
    choice = read_choice(run.work.choice)
    if choice is None:
        choice = _choose(run, run.held_out())
        write_text(run.work.choice, choice.model_dump_json(indent=2) + "\n")
    run.progress("metric", first_labels=choice.parts, dice=choice.means())
    return labels if choice.given else {**labels, **_write_mixed(run, choice)}


def cross_validate(run: Run) -> RoundReport:
    """Train networks on the labelled cases alone, each without one fold of them, which it then segments.

    The report's agreement is the mean Dice of those predictions with people's labels.
    """
    labelled = [case.id for case in run.cohort.labelled]
    fold_of = assign_folds(labelled, MOST_FOLDS, run.options.seed)
    by_case = splits(fold_of, labelled=(), trainable=labelled)  # here it is they who are held out
    roles = RoundRoles(
        labelled=tuple(labelled),
        trained=(),
        left_out={case.id: "labelled cases only" for case in run.cohort.unlabelled},
        folds={fold: tuple(split["val"]) for fold, split in enumerate(by_case)},
    )
    training_set = TrainingSet(roles, by_case, run.given_labels())
    return run.trained(run.work.crossvalidation, lambda: training_set, run.options.schedule)


def mixed_labels(
    given: PseudoLabel, networks: NDArray[np.float32], parts: Sequence[float], values: Sequence[int]
) -> NDArray[np.uint8]:
    """The label map of the mean of two probabilities, each class with its own part of the networks.

    Args:
        given: A pseudo-label; a class of which the networks have no part keeps its threshold and components.
        networks: float32 (classes, K, J, I), the networks' probability of the same image.
        parts: Of each class, 0..1.
        values: Label value of each class.

    Returns:
        uint8 (K, J, I): the likeliest class where it is above one half.
    """
    mixed = np.empty_like(networks)
    for index, (part, value) in enumerate(zip(parts, values, strict=True)):
        if part:
            mixed[index] = (1 - part) * given.probability[index] + part * networks[index]
        else:  # as likely as its label map says
            inside = given.mask == value
            mixed[index] = np.where(inside, np.maximum(given.probability[index], 0.5 + 1e-3), 0)
    return merge_classes(mixed, 0.5, values)


def _choose(run: Run, held_out: Mapping[str, Path]) -> Choice:
    """Score the candidates on the labelled cases."""
    classes, values = run.cohort.classes, ClassValues(run.cohort.classes)
    report = cross_validate(run)
    networks = _Networks(run)
    scores: dict[str, dict[str, dict[str, float]]] = {each.name: {name: {} for name in PARTS} for each in classes}
    of_fold = {case: place for place, fold in enumerate(sorted(report.folds)) for case in report.folds[fold]}
    run.progress("stage", stage="comparing first labels", total=len(of_fold))
    for done, case in enumerate(run.cohort.labelled, start=1):
        given, network = load_pseudo_label(held_out[case.id]), networks.probability(case, of_fold[case.id])
        truth = values.to_nnunet(read_label(run.cohort, case).array)
        candidates = {
            name: values.to_nnunet(
                mixed_labels(given, network, [part] * len(classes), [each.value for each in classes])
            )
            for name, part in PARTS.items()
        }
        dice = {name: dice_by_class(truth, labels, len(classes)) for name, labels in candidates.items()}
        for place, each in enumerate(classes):
            found = {name: of_classes[place] for name, of_classes in dice.items()}
            if any(score is not None for score in found.values()):
                for name, score in found.items():  # None: rightly nothing, where another found something
                    scores[each.name][name][case.id] = 1.0 if score is None else score
        run.progress("progress", stage="comparing first labels", done=done, total=len(of_fold), case=case.id)
    parts = {segment: PARTS[_best(candidates)] for segment, candidates in scores.items()}
    return Choice(parts=parts, dice=scores)


def _best(dice: Mapping[str, Mapping[str, float]]) -> str:
    """The candidate with the highest mean Dice over the same cases, if it is better than the given beyond doubt."""
    from scipy.stats import ttest_1samp

    if len(dice["given"]) < FEWEST:
        return "given"
    found = {name: np.array(list(cases.values())) for name, cases in dice.items()}
    best = max(PARTS, key=lambda name: found[name].mean())
    if best == "given" or np.ptp(gains := found[best] - found["given"]) == 0:
        return best  # of equal gains there is no doubt
    return best if ttest_1samp(gains, 0.0, alternative="greater").pvalue < DOUBT else "given"


def _write_mixed(run: Run, choice: Choice) -> dict[str, Path]:
    """The mixed labels of the unlabelled cases that have a pseudo-label; finished ones are kept."""
    classes, values = run.cohort.classes, ClassValues(run.cohort.classes)
    parts = [choice.parts[each.name] for each in classes]
    waiting = {
        case.id: case for case in run.cohort.unlabelled if is_complete(run.results.get(case.id, Path()), thorough=False)
    }
    networks, made = None, {}
    run.progress("stage", stage="first labels", total=len(waiting))
    for done, case in enumerate(waiting.values(), start=1):
        made[case.id] = run.work.first.labels / f"{run.keys[case.id]}.nii.gz"
        if not made[case.id].is_file():
            networks = networks or _Networks(run)
            given = load_pseudo_label(run.results[case.id])
            labels = mixed_labels(given, networks.probability(case), parts, [each.value for each in classes])
            grid = read_geometry(run.cohort, case)
            published = run.work.first.predictions / f"{case.id}.nii.gz"
            write_label(published, LabelMap(labels, grid), classes, reference=grid)
            for_nnunet = LabelMap(values.to_nnunet(labels), grid)
            write_label(made[case.id], for_nnunet, values.nnunet_classes, reference=grid)
        run.progress("progress", stage="first labels", done=done, total=len(waiting), case=case.id)
    return made


class _Networks:
    """The networks of the cross-validation, in memory."""

    def __init__(self, run: Run) -> None:
        import torch

        from SSLSegLib.selftraining.model import load_model  # nnU-Net: seconds, needed only here

        self.run, self.model = run, load_model(run.work.crossvalidation)
        self.predictor: Any = self.model.predictor(torch.device(run.device))

    def probability(self, case: Case, fold: int | None = None) -> NDArray[np.float32]:
        """float32 (classes, K, J, I) of one fold's network (its place in the model), or the average of all."""
        from SSLSegLib.selftraining.predict import predict_case

        model = self.model if fold is None else replace(self.model, weights=[self.model.weights[fold]])
        found = predict_case(
            model,
            self.run.cohort.image_paths(case),
            self.run.cohort.classes,
            case_id=case.id,
            predictor=self.predictor,
        )
        return found.probability

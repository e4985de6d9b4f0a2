"""Where everything of a self-training run lies. Names are short and ASCII, since nnU-Net adds long ones below.

::

    settings.json  folds.json  cases.json
    base/     raw/ pre/ labels/ masks/     the dataset, planned and preprocessed once
    rounds/1/ pre/ res/ labels/ predictions/ round.json
    rounds/2/ ...
    cv/       pre/ res/ predictions/ round.json  cross-validation over the labelled cases
    first/    labels/ predictions/ choice.json   the labels of round 1, where they are not the pseudo-labels as given
    baseline/ pre/ res/ labels/ round.json  the same network on the labelled cases only
    reverted/                              rounds that were undone, none is ever deleted
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DATASET", "PLANS", "RoundFolder", "WorkFolder"]

DATASET = "Dataset001_SSL"
PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class RoundFolder:
    """One round (or the baseline): its preprocessed labels, its trained folds, its predictions."""

    path: Path
    name: str

    @property
    def preprocessed(self) -> Path:
        """nnU-Net's ``nnUNet_preprocessed`` of this round; its images are hard links to those of the base."""
        return self.path / "pre"

    @property
    def results(self) -> Path:
        """nnU-Net's ``nnUNet_results`` of this round."""
        return self.path / "res"

    @property
    def labels(self) -> Path:
        """The labels it was trained on, in nnU-Net's values."""
        return self.path / "labels"

    @property
    def predictions(self) -> Path:
        """The union of the folds' validation predictions, in the cohort's values."""
        return self.path / "predictions"

    @property
    def relabelled(self) -> Path:
        """There when the round's training data are complete."""
        return self.path / "relabelled.json"

    @property
    def report(self) -> Path:
        """There when the round is finished."""
        return self.path / "round.json"

    def model(self, configuration: str) -> Path:
        """nnU-Net's model folder: plans, dataset and one folder per fold."""
        return self.results / DATASET / f"FoldTrainer__{PLANS}__{configuration}"

    def fold(self, configuration: str, fold: int) -> Path:
        """The folder of a fold's checkpoints and validation predictions."""
        return self.model(configuration) / f"fold_{fold}"

    def fold_done(self, configuration: str, fold: int) -> Path:
        """There when a fold is trained and has predicted its cases."""
        return self.fold(configuration, fold) / "done.json"


@dataclass(frozen=True)
class WorkFolder:
    """A self-training run on disk."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def folds(self) -> Path:
        return self.path / "folds.json"

    @property
    def cases(self) -> Path:
        return self.path / "cases.json"

    @property
    def raw(self) -> Path:
        return self.path / "base" / "raw"

    @property
    def preprocessed(self) -> Path:
        return self.path / "base" / "pre"

    @property
    def labels(self) -> Path:
        return self.path / "base" / "labels"

    @property
    def masks(self) -> Path:
        return self.path / "base" / "masks"

    @property
    def planned(self) -> Path:
        """There when the dataset is planned and preprocessed."""
        return self.path / "base" / "planned.json"

    @property
    def baseline(self) -> RoundFolder:
        return RoundFolder(self.path / "baseline", "baseline")

    @property
    def crossvalidation(self) -> RoundFolder:
        return RoundFolder(self.path / "cv", "cross-validation")

    @property
    def first(self) -> RoundFolder:
        """Only its labels and predictions are used."""
        return RoundFolder(self.path / "first", "first labels")

    @property
    def choice(self) -> Path:
        """There when it is decided what round 1 is trained on."""
        return self.path / "first" / "choice.json"

    def round(self, number: int) -> RoundFolder:
        return RoundFolder(self.path / "rounds" / str(number), f"round {number}")

    def finished_rounds(self) -> list[int]:
        """Numbers of the finished rounds, 1, 2, ... without a gap."""
        number = 0
        while self.round(number + 1).report.is_file():
            number += 1
        return list(range(1, number + 1))

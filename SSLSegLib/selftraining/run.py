"""One self-training run on disk: its dataset, and what a round does with it, each step resumable."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import SimpleITK

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.reading import read_geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.files import sha256_of, write_json, write_text
from SSLSegLib.processes import real_interpreter, usable_cores
from SSLSegLib.progress import Progress, silent
from SSLSegLib.selftraining.agreement import CaseChange, compare_labels, mean_agreement
from SSLSegLib.selftraining.children import Child, Events, child_environment, real_device, run_children
from SSLSegLib.selftraining.dataset import (
    ClassValues,
    Decisions,
    export_dataset,
    read_decisions,
    result_folders,
    write_corrected,
)
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import RoundFolder, WorkFolder
from SSLSegLib.selftraining.folds import Split, assign_folds, splits
from SSLSegLib.selftraining.follow import Follower
from SSLSegLib.selftraining.options import Schedule, SelfTrainingOptions
from SSLSegLib.selftraining.plan import PlanSpec
from SSLSegLib.selftraining.relabel import build_training_set
from SSLSegLib.selftraining.report import RoundReport, RoundRoles, read_report, write_report
from SSLSegLib.selftraining.settings import check_settings
from SSLSegLib.selftraining.train_fold import FoldSpec

__all__ = ["HeldOut", "How", "Run", "Trainer", "TrainingSet"]

Trainer = Callable[[Sequence[Child], Sequence[str], Path, Events], None]
"""Trains folds as :func:`~SSLSegLib.selftraining.children.run_children` does, here or elsewhere."""

HeldOut = Callable[[], Mapping[str, Path]]
"""Labelled case -> folder of the pseudo-label that the method of the given ones makes of it from the *other* labelled
cases. Made when it is asked for."""


class How(TypedDict, total=False):
    """What may be said beside cohort, pseudo-labels, folder and options.

    decisions: What people decided; read from the result folders (``review.json``) when left out.
    progress: Gets ``stage`` and ``progress`` events, and a ``metric`` event after each epoch of each fold with round,
        fold, epoch, epochs, train_loss, val_loss, pseudo_dice, learning_rate, seconds.
    interpreter: Python for the child processes; found when left out.
    trainer: Where the folds are trained; here when left out.
    held_out: For the choice of the first labels (``SelfTrainingOptions.first_labels``); without it there is none.
    device: What this process itself predicts on; the first of the training's when left out.
    """

    decisions: Decisions | None
    progress: Progress
    interpreter: Path | None
    trainer: Trainer
    held_out: HeldOut | None
    device: str | None


@dataclass(frozen=True)
class TrainingSet:
    """What networks are trained on.

    Args:
        roles: Which case is what.
        splits: Of each fold, by case; every case of a fold's ``val`` is predicted by it.
        labels: Case -> label file in nnU-Net's values, of all cases.
    """

    roles: RoundRoles
    splits: Sequence[Split]
    labels: Mapping[str, Path]


@dataclass(frozen=True)
class Run:
    """One run with all it needs to know."""

    cohort: Cohort
    results: Mapping[str, Path]
    work: WorkFolder
    options: SelfTrainingOptions
    decisions: Decisions | None
    progress: Progress
    interpreter: Path
    trainer: Trainer
    held_out: HeldOut | None
    device: str
    keys: Mapping[str, str]
    folds: Mapping[str, int]

    @classmethod
    def prepare(
        cls,
        cohort: Cohort,
        results: Path | Mapping[str, Path],
        folder: Path,
        options: SelfTrainingOptions,
        *,
        decisions: Decisions | None = None,
        progress: Progress = silent,
        interpreter: Path | None = None,
        trainer: Trainer = run_children,
        held_out: HeldOut | None = None,
        device: str | None = None,
    ) -> "Run":
        """Export the dataset, deal the folds and plan: each only once."""
        work = WorkFolder(Path(folder).resolve())
        interpreter = interpreter or real_interpreter()
        where = result_folders(cohort, results)
        check_settings(work, cohort, options)
        if not work.planned.is_file():
            export_dataset(work, cohort, where, progress)
            _plan(work, options, interpreter, progress)
        keys = json.loads(work.cases.read_text(encoding="utf-8"))
        if not work.folds.is_file():
            unlabelled = [case.id for case in cohort.unlabelled]
            write_json(work.folds, assign_folds(unlabelled, options.folds, options.seed))
        folds = json.loads(work.folds.read_text(encoding="utf-8"))
        options = options.model_copy(update={"devices": tuple(map(real_device, options.devices))})
        device = device or options.devices[0]
        return cls(
            cohort, where, work, options, decisions, progress, interpreter, trainer, held_out, device, keys, folds
        )

    def given_labels(self) -> dict[str, Path]:
        """Case -> label in nnU-Net's values: people's labels, and the pseudo-labels given."""
        return {case: self.work.labels / f"{key}.nii.gz" for case, key in self.keys.items()}

    def updated_labels(self, number: int, labels: Mapping[str, Path]) -> dict[str, Path]:
        """Case -> label after a round: the union of the folds' validation predictions, and people's labels."""
        target, report = self.work.round(number), read_report(self.work.round(number).report)
        predicted = {
            case: target.fold(self.options.configuration, fold) / "validation" / f"{self.keys[case]}.nii.gz"
            for fold, cases in report.folds.items()
            for case in cases
        }
        return {**labels, **predicted}

    def one_round(self, target: RoundFolder, labels: Mapping[str, Path], *, labelled_only: bool = False) -> RoundReport:
        """A round from labels of all cases, or the baseline."""
        if labelled_only:
            schedule = self.options.baseline_schedule(len(self.cohort.labelled))
            return self.trained(target, lambda: self._training_set(labels, True), schedule, compared=False)
        return self.trained(target, lambda: self._training_set(labels, False), self.options.schedule)

    def trained(
        self,
        target: RoundFolder,
        training_set: Callable[[], TrainingSet],
        schedule: Schedule,
        *,
        compared: bool = True,
    ) -> RoundReport:
        """Build the training set, train the folds, put their predictions together; nothing if all that is done.

        Args:
            target: Where.
            training_set: Decides what is trained on; not asked where a run that was stopped has asked it.
            schedule: How.
            compared: Whether the agreement of predictions and labels says anything.
        """
        if target.report.is_file():
            return read_report(target.report)
        started = time.monotonic()
        roles = self._lay_out(target, training_set)
        configuration = self.options.configuration
        self._train_folds(target, sorted(roles.folds), schedule)
        report = RoundReport(
            name=target.name,
            configuration=configuration,
            **dict(roles),
            checkpoints={
                fold: sha256_of(target.fold(configuration, fold) / "checkpoint_final.pth") for fold in roles.folds
            },
            agreement=None,
            changes={},
            seconds=round(time.monotonic() - started, 1),
        )
        changes = self._publish_predictions(target, report)
        agreement = mean_agreement(list(changes.values())) if compared else None
        report = report.model_copy(update={"changes": changes, "agreement": agreement})
        write_report(target.report, report)
        return report

    def _lay_out(self, target: RoundFolder, training_set: Callable[[], TrainingSet]) -> RoundRoles:
        """Lay out the training data; a round that was begun keeps its decisions."""
        if target.relabelled.is_file():
            return RoundRoles.model_validate_json(target.relabelled.read_bytes())
        wanted = training_set()
        labels = {self.keys[case]: path for case, path in wanted.labels.items()}
        named = [{part: [self.keys[case] for case in split[part]] for part in split} for split in wanted.splits]
        build_training_set(self.work, target, self.options.configuration, labels, named, self.progress)
        write_text(target.relabelled, wanted.roles.model_dump_json(indent=2) + "\n")
        return wanted.roles

    def _training_set(self, labels: Mapping[str, Path], labelled_only: bool) -> TrainingSet:
        """Decide which case is what in a round."""
        labels = dict(labels)
        decisions = self.decisions
        if decisions is None:  # the baseline compares with the cohort as it was given, without corrections
            decisions = Decisions() if labelled_only else read_decisions(self.results, self.progress)
        for case, source in decisions.corrected.items():
            labels[case] = write_corrected(self.work, self.cohort, case, source)
        by_person = [case.id for case in self.cohort.labelled] + sorted(decisions.corrected)
        left_out = self._left_out(labels, decisions, labelled_only)
        trained = [case for case in sorted(self.folds) if case not in left_out and case not in by_person]
        if not trained and not labelled_only:
            self.progress("warning", message="No pseudo-label is fit for training; only labelled cases are used.")
        by_case = splits(self.folds, by_person, trained)
        if not any(split["val"] for split in by_case):
            raise SelfTrainingError(
                "Every unlabelled case has been corrected, so there is nothing left to refine.",
                remedy="Add unlabelled cases, or make a cohort in which the corrected ones are labelled. Finished "
                "rounds and their models stay.",
            )
        roles = RoundRoles(
            labelled=tuple(by_person),
            trained=tuple(trained),
            left_out=left_out,
            folds={fold: tuple(split["val"]) for fold, split in enumerate(by_case) if split["val"]},
        )
        return TrainingSet(roles, by_case, labels)

    def _left_out(self, labels: Mapping[str, Path], decisions: Decisions, labelled_only: bool) -> dict[str, str]:
        """Unlabelled case -> why its pseudo-label is not trained on."""
        reasons = {}
        for case in sorted(self.folds):
            if case in decisions.corrected:
                continue
            if labelled_only:
                reasons[case] = "labelled cases only"
            elif case in decisions.rejected:
                reasons[case] = "rejected"
            elif not _foreground(labels[case]):
                reasons[case] = "empty"
        return reasons

    def _train_folds(self, target: RoundFolder, folds: list[int], schedule: Schedule) -> None:
        options, configuration = self.options, self.options.configuration
        slots = _slots(options, len(folds))
        threads = max(1, usable_cores() // len(slots))
        environment = child_environment(
            threads=threads,
            workers=schedule.workers,
            nnUNet_raw=self.work.raw,
            nnUNet_preprocessed=target.preprocessed,
            nnUNet_results=target.results,
        )
        unfinished = [fold for fold in folds if not target.fold_done(configuration, fold).is_file()]
        children = {
            fold: Child(
                name=f"fold {fold} of {target.name}",
                module="SSLSegLib.selftraining.train_fold",
                spec=FoldSpec(
                    preprocessed=target.preprocessed,
                    configuration=configuration,
                    fold=fold,
                    schedule=schedule,
                    seed_names=(options.seed, target.name, fold),
                    warm_start=self._warm_start(target, fold),
                    done=target.fold_done(configuration, fold),
                    threads=threads,
                    interpreter=self.interpreter,
                ),
                folder=target.path,
                stem=f"fold_{fold}",
                environment=environment,
            )
            for fold in unfinished
        }
        numbers = {child.stem: fold for fold, child in children.items()}

        follow = Follower(target.name, numbers, len(folds) - len(unfinished), schedule.epochs, self.progress)
        self.trainer(list(children.values()), slots, self.interpreter, follow)

    def _warm_start(self, target: RoundFolder, fold: int) -> Path | None:
        """The same fold of the round before, if the schedule asks for it; before round 1 comes the cross-validation.

        Its networks have seen no pseudo-label, so each may be followed by any fold.
        """
        number = target.path.name
        if not self.options.schedule.warm_start or not number.isdigit():
            return None
        before, same = self.work.round(int(number) - 1), fold
        if number == "1":
            before = self.work.crossvalidation
            if not before.report.is_file():
                return None
            same = fold % len(read_report(before.report).folds)
        checkpoint = before.fold(self.options.configuration, same) / "checkpoint_final.pth"
        return checkpoint if checkpoint.is_file() else None

    def _publish_predictions(self, target: RoundFolder, report: RoundReport) -> dict[str, CaseChange]:
        """The union of the folds' predictions in the cohort's values, and how each differs from the label before."""
        values, changes = ClassValues(self.cohort.classes), {}
        for fold, cases in report.folds.items():
            for case in cases:
                key = self.keys[case]
                predicted = target.fold(self.options.configuration, fold) / "validation" / f"{key}.nii.gz"
                array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(predicted)))
                grid = read_geometry(self.cohort, self.cohort.case(case))
                label = LabelMap(values.from_nnunet(array.astype(np.uint8)), grid)
                write_label(target.predictions / f"{case}.nii.gz", label, self.cohort.classes, reference=grid)
                changes[case] = compare_labels(target.labels / f"{key}.nii.gz", array, len(self.cohort.classes))
                if case in self.folds:  # a labelled case, in the cross-validation, is no result
                    self.progress("result", case=case, round=target.name, dice=changes[case].dice)
        return changes


def _plan(work: WorkFolder, options: SelfTrainingOptions, interpreter: Path, progress: Progress) -> None:
    cores = usable_cores()
    images = len(json.loads(work.cases.read_text(encoding="utf-8")))
    # Starting a pool takes longer than preprocessing a few small cases.
    processes = 1 if options.preset == "quick" else max(1, min(cores, images))
    spec = PlanSpec(
        work=work.path,
        configuration=options.configuration,
        network=options.network,
        processes=processes,
        interpreter=interpreter,
    )
    environment = child_environment(
        threads=1, workers=1, nnUNet_raw=work.raw, nnUNet_preprocessed=work.preprocessed, nnUNet_results=work.path
    )
    work.preprocessed.mkdir(parents=True, exist_ok=True)
    child = Child("planning", "SSLSegLib.selftraining.plan", spec, work.path / "base", "plan", environment)

    def forward(child: Child, event: dict) -> None:
        fields = {name: value for name, value in event.items() if name not in ("schema_version", "time", "event")}
        progress(event["event"], **fields)

    run_children([child], ["cpu"], interpreter, forward)


def _slots(options: SelfTrainingOptions, folds: int) -> list[str]:
    """A device for each fold that may run at a time."""
    slots = []
    for device in options.devices:
        side_by_side = options.folds_per_device or (min(usable_cores(), folds) if device == "cpu" else 1)
        slots += [device] * max(1, side_by_side)
    return slots


def _foreground(label: Path) -> bool:
    return bool(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(label))).any())  # a view would outlive its image

"""Self-training rounds: the while loop of Algorithm 1, each step resumable from what lies on disk.

::

    while not converge do
        D <- {D^l, (X^u, Y^u)}      training set building       one_round: build_training_set
        g <- train on D             model refinement            one_round: train_folds
        Y^u <- g(X^u)               pseudo label updating       one_round: publish_predictions
    end while
    return refined model g
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.reading import read_geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.files import sha256_of, write_json, write_text
from SSLSegLib.processes import real_interpreter, usable_cores
from SSLSegLib.progress import Progress, silent
from SSLSegLib.selftraining.agreement import CaseChange, compare_labels, mean_agreement, why_stop
from SSLSegLib.selftraining.children import Child, child_environment, run_children
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
from SSLSegLib.selftraining.folds import assign_folds, splits
from SSLSegLib.selftraining.options import SelfTrainingOptions
from SSLSegLib.selftraining.plan import PlanSpec
from SSLSegLib.selftraining.relabel import build_training_set
from SSLSegLib.selftraining.report import Outcome, RoundReport, RoundRoles, read_report, write_report
from SSLSegLib.selftraining.train_fold import FoldSpec

__all__ = ["revert", "self_train", "train_labelled_only"]


def self_train(
    cohort: Cohort,
    results: Path | Mapping[str, Path],
    work: Path,
    options: SelfTrainingOptions,
    *,
    decisions: Decisions | None = None,
    progress: Progress = silent,
    interpreter: Path | None = None,
) -> Outcome:
    """Refine pseudo-labels by self-training until they converge (paper 1, Algorithm 1, from line 2 on).

    Run again with the same arguments after any end, kill -9 included: finished folds are kept and the others continue
    from their last checkpoint. Run again with more ``rounds`` to go on.

    Args:
        cohort: Labelled and unlabelled cases. References and test cases are never looked at.
        results: ``results`` folder of a pseudo-labelling job, or unlabelled case -> its folder in it.
        work: Folder of this run; see :mod:`SSLSegLib.selftraining.folders`.
        options: How.
        decisions: What people decided; read from the result folders (``review.json``) when left out. Looked at anew
            before each round.
        progress: Gets ``stage`` and ``progress`` events, and a ``metric`` event after each epoch of each fold with
            round, fold, epoch, epochs, train_loss, val_loss, pseudo_dice, learning_rate, seconds; and after each round
            with round, agreement.
        interpreter: Python for the child processes; found when left out.

    Returns:
        The reports of all rounds. The refined labels lie in ``rounds/N/predictions``, the model in ``rounds/N``.

    Raises:
        SelfTrainingError: When the folder holds another run or a child process fails.
        CaseError, CohortError: When the input cannot be used.
    """
    run = _Run.prepare(cohort, results, work, options, decisions, progress, interpreter)
    labels = run.first_labels()
    reports: list[RoundReport] = []
    stopped = None
    while stopped is None:
        number = len(reports) + 1
        report = run.one_round(run.work.round(number), labels)
        reports.append(report)
        agreements = [each.agreement for each in reports if each.agreement is not None]
        stopped = why_stop(agreements, options.rounds, options.stop_agreement, options.stop_gain)
        progress("metric", round=f"round {number}", agreement=report.agreement, stopped=stopped)
        labels = run.updated_labels(number, labels)
    return Outcome(rounds=tuple(reports), stopped=stopped)


def train_labelled_only(
    cohort: Cohort,
    results: Path | Mapping[str, Path],
    work: Path,
    options: SelfTrainingOptions,
    *,
    decisions: Decisions | None = None,
    progress: Progress = silent,
    interpreter: Path | None = None,
) -> RoundReport:
    """The baseline: the same plan, network, number of folds and iterations, on the cohort's labelled cases only.

    Says what the unlabelled data brought. Cases that were corrected since are not used. Arguments and errors as in
    :func:`self_train`. The model lies in ``baseline``.
    """
    run = _Run.prepare(cohort, results, work, options, decisions or Decisions(), progress, interpreter)
    return run.one_round(run.work.baseline, run.first_labels(), labelled_only=True)


def revert(work: Path, last: int) -> list[int]:
    """Undo the rounds after ``last``: they move to ``reverted/`` and the next run goes on from round ``last``.

    Args:
        work: Folder of the run.
        last: The last round to keep; 0 undoes all.

    Returns:
        The rounds that were moved.

    Raises:
        SelfTrainingError: When there is no such round.
    """
    folder = WorkFolder(Path(work))
    finished = folder.finished_rounds()
    if last not in (0, *finished):
        raise SelfTrainingError(f"There is no finished round {last}.", remedy=f"Finished rounds: {finished or 'none'}.")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    moved = []
    for path in sorted((folder.path / "rounds").iterdir()) if (folder.path / "rounds").is_dir() else []:
        if path.name.isdigit() and int(path.name) > last:
            target = folder.path / "reverted" / f"{stamp}-{path.name}"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
            moved.append(int(path.name))
    return moved


@dataclass(frozen=True)
class _Run:
    """One run with all it needs to know."""

    cohort: Cohort
    results: Mapping[str, Path]
    work: WorkFolder
    options: SelfTrainingOptions
    decisions: Decisions | None
    progress: Progress
    interpreter: Path
    keys: Mapping[str, str]
    folds: Mapping[str, int]

    @classmethod
    def prepare(
        cls,
        cohort: Cohort,
        results: Path | Mapping[str, Path],
        folder: Path,
        options: SelfTrainingOptions,
        decisions: Decisions | None,
        progress: Progress,
        interpreter: Path | None,
    ) -> "_Run":
        """Export the dataset, deal the folds and plan: each only once."""
        work = WorkFolder(Path(folder).resolve())
        interpreter = interpreter or real_interpreter()
        where = result_folders(cohort, results)
        _check_settings(work, cohort, options)
        if not work.planned.is_file():
            export_dataset(work, cohort, where, progress)
            _plan(work, options, interpreter, progress)
        keys = json.loads(work.cases.read_text(encoding="utf-8"))
        if not work.folds.is_file():
            unlabelled = [case.id for case in cohort.unlabelled]
            write_json(work.folds, assign_folds(unlabelled, options.folds, options.seed))
        folds = json.loads(work.folds.read_text(encoding="utf-8"))
        return cls(cohort, where, work, options, decisions, progress, interpreter, keys, folds)

    def first_labels(self) -> dict[str, Path]:
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
        """Build the training set, train the folds, put their predictions together; nothing if all that is done."""
        if target.report.is_file():
            return read_report(target.report)
        started = time.monotonic()
        roles = self._training_set(target, labels, labelled_only)
        configuration = self.options.configuration
        self._train_folds(target, sorted(roles.folds), labelled_only)
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
        agreement = None if labelled_only else mean_agreement(list(changes.values()))
        report = report.model_copy(update={"changes": changes, "agreement": agreement})
        write_report(target.report, report)
        return report

    def _training_set(self, target: RoundFolder, labels: Mapping[str, Path], labelled_only: bool) -> RoundRoles:
        """Decide which case is what and lay out the training data; a round that was begun keeps its decisions."""
        if target.relabelled.is_file():
            return RoundRoles.model_validate_json(target.relabelled.read_bytes())
        labels = dict(labels)
        decisions = self.decisions or read_decisions(self.results, self.progress)
        for case, source in decisions.corrected.items():
            labels[case] = write_corrected(self.work, self.cohort, case, source)
        by_person = [case.id for case in self.cohort.labelled] + sorted(decisions.corrected)
        left_out = self._left_out(labels, decisions, labelled_only)
        trained = [case for case in sorted(self.folds) if case not in left_out and case not in by_person]
        if not trained and not labelled_only:
            self.progress("warning", message="No pseudo-label is fit for training; only labelled cases are used.")
        by_case = splits(self.folds, by_person, trained)
        roles = RoundRoles(
            labelled=tuple(by_person),
            trained=tuple(trained),
            left_out=left_out,
            folds={fold: tuple(split["val"]) for fold, split in enumerate(by_case) if split["val"]},
        )
        by_key = {self.keys[case]: path for case, path in labels.items()}
        named = [{part: [self.keys[case] for case in split[part]] for part in split} for split in by_case]
        build_training_set(self.work, target, self.options.configuration, by_key, named, self.progress)
        write_text(target.relabelled, roles.model_dump_json(indent=2) + "\n")
        return roles

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

    def _train_folds(self, target: RoundFolder, folds: list[int], labelled_only: bool) -> None:
        options, configuration = self.options, self.options.configuration
        schedule = options.baseline_schedule if labelled_only else options.schedule
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

        follow = _Follower(target.name, numbers, len(folds) - len(unfinished), schedule.epochs, self.progress)
        run_children(list(children.values()), slots, self.interpreter, follow)

    def _warm_start(self, target: RoundFolder, fold: int) -> Path | None:
        """The same fold of the round before, if the schedule asks for it."""
        number = target.path.name
        if not self.options.schedule.warm_start or not number.isdigit() or number == "1":
            return None
        before = self.work.round(int(number) - 1).fold(self.options.configuration, fold) / "checkpoint_final.pth"
        return before if before.is_file() else None

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
                self.progress("result", case=case, round=target.name, dice=changes[case].dice)
        return changes


class _Follower:
    """The events of a round's folds as events of the round: epochs of all folds make one bar."""

    def __init__(self, name: str, folds: Mapping[str, int], finished: int, epochs: int, progress: Progress) -> None:
        self.name, self.folds, self.progress, self.epochs = name, folds, progress, epochs
        self.total = (finished + len(folds)) * epochs
        self.done = dict.fromkeys(folds, 0) | {"finished": finished * epochs}
        progress("stage", stage=f"training {name}", total=self.total)

    def __call__(self, child: Child, event: dict[str, Any]) -> None:
        fields = {name: value for name, value in event.items() if name not in ("time", "event")}
        if event["event"] == "metric":
            self.progress("metric", round=self.name, fold=self.folds[child.stem], **fields)
            self.done[child.stem] = fields["epoch"]
            self.progress("progress", stage=f"training {self.name}", done=sum(self.done.values()), total=self.total)
        elif event["event"] == "progress":
            self.progress("predicted", round=self.name, fold=self.folds[child.stem], case=fields["case"])
        else:
            self.progress(event["event"], **fields)


def _check_settings(work: WorkFolder, cohort: Cohort, options: SelfTrainingOptions) -> None:
    """Write down what the run depends on; refuse to mix two runs in a folder."""
    settings = {
        "schema_version": 1,
        "options": options.what(),
        "classes": [[each.value, each.name] for each in cohort.classes],
        "labelled": sorted(case.id for case in cohort.labelled),
        "unlabelled": sorted(case.id for case in cohort.unlabelled),
    }
    if not work.settings.is_file():
        write_json(work.settings, settings)
        return
    there = json.loads(work.settings.read_text(encoding="utf-8"))
    other = [name for name, value in settings.items() if there.get(name) != json.loads(json.dumps(value))]
    if other:
        raise SelfTrainingError(
            f"{work.path} holds a self-training run with other {', '.join(other)}.",
            remedy="Choose another folder, or give the same options; nothing was changed.",
        )


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
        progress(event["event"], **{name: value for name, value in event.items() if name not in ("time", "event")})

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

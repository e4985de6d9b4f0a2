"""``self-train``: rounds after a pseudo-labelling job; ``predict``: the model on images; ``export-model``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from SSLSegLib.commands.shared import console

if TYPE_CHECKING:
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.selftraining.report import RoundReport

__all__ = ["SELF_TRAINING", "export_model", "predict", "self_train", "self_training_folder"]

SELF_TRAINING = "selftraining"
"""Folder of a self-training run in its job's folder."""

JobArgument = Annotated[Path, typer.Argument(help="A finished pseudo-labelling job.")]
RoundOption = Annotated[str | None, typer.Option("--round", help="A round's number, or 'baseline'. Default: the last.")]


class Preset(StrEnum):
    """How long and how large."""

    quick = "quick"
    standard = "standard"
    paper = "paper"


class Configuration(StrEnum):
    """nnU-Net's configurations."""

    two_d = "2d"
    three_d = "3d_fullres"


def self_train(
    job: JobArgument,
    rounds: Annotated[int | None, typer.Option(min=1, help="The most rounds. Default: the preset's.")] = None,
    preset: Annotated[
        Preset, typer.Option(help="quick: minutes on a CPU; standard: hours on a GPU; paper: 1,000 epochs, 3 rounds.")
    ] = Preset.quick,
    configuration: Annotated[Configuration | None, typer.Option(help="Default: the preset's.")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="auto, cpu, cuda:0 ...; several run folds side by side.")
    ] = None,
    labelled_only: Annotated[
        bool, typer.Option("--labelled-only", help="Train the baseline: the same network on labelled cases only.")
    ] = False,
    revert_to: Annotated[int | None, typer.Option(min=0, help="First undo the rounds after this one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="All random draws follow from it.")] = 42,
) -> None:
    """Refine a job's pseudo-labels by self-training with nnU-Net; ends in a model. Run again to resume."""
    from SSLSegLib.jobs.terminal import TerminalProgress
    from SSLSegLib.selftraining import rounds as training
    from SSLSegLib.selftraining.options import SelfTrainingOptions

    opened, cohort = _open(job)
    options = SelfTrainingOptions.of(
        preset.value,
        rounds=rounds,
        configuration=configuration.value if configuration else None,
        devices=tuple(map(_device, device or ["auto"])),
        seed=seed,
    )
    work = self_training_folder(opened)
    results = {case.id: opened.result_folder(case.id) for case in cohort.unlabelled}
    if revert_to is not None:
        moved = training.revert(work, revert_to)
        console.print(f"Undone: {', '.join(f'round {number}' for number in moved) or 'nothing'}.")
    with TerminalProgress(console) as progress:
        if labelled_only:
            training.train_labelled_only(cohort, results, work, options, progress=progress)
            reports: tuple[RoundReport, ...] = ()
        else:
            reports = training.self_train(cohort, results, work, options, progress=progress).rounds
    _print_rounds(reports)
    console.print(f"Model and labels: {work}", soft_wrap=True, highlight=False)


def predict(
    job: JobArgument,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, one each; left out: the cohort's test cases.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: predictions/ in the job's folder.")] = None,
    round_: RoundOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Segment images with the model of a self-training: the average of its folds, and where they disagree."""
    from SSLSegLib.errors import CohortError
    from SSLSegLib.jobs.terminal import TerminalProgress
    from SSLSegLib.selftraining.model import find_round, load_model
    from SSLSegLib.selftraining.predict import image_name, predict_files

    opened, cohort = _open(job)
    model = load_model(find_round(self_training_folder(opened), round_))
    if images:
        files = {image_name(path): [path] for path in images}
    else:
        files = {case.id: cohort.image_paths(case) for case in cohort.test}
    if not files:
        raise CohortError("The cohort has no test cases.", remedy="Name the images to segment.")
    output = out or opened.folder / "predictions" / model.report.name.replace(" ", "_")
    with TerminalProgress(console) as progress:
        predict_files(model, files, cohort.classes, output, device=_device(device), progress=progress)
    console.print(f"Predictions: {output}", soft_wrap=True, highlight=False)


def export_model(
    job: JobArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the model folder into.")],
    round_: RoundOption = None,
) -> None:
    """Write the model as a standard nnU-Net v2 model folder (nnUNetv2_predict_from_modelfolder, SlicerNNUnet)."""
    from SSLSegLib.selftraining.export import export_model as export
    from SSLSegLib.selftraining.model import find_round

    opened, cohort = _open(job)
    folder = export(find_round(self_training_folder(opened), round_), out, cohort)
    console.print(f"nnU-Net model: {folder}", soft_wrap=True, highlight=False)


def self_training_folder(job: "Job") -> Path:
    """Where a job's self-training lies."""
    return job.folder / SELF_TRAINING


def _open(path: Path) -> "tuple[Job, Cohort]":
    from SSLSegLib.jobs.folder import Job

    job = Job.open(path)
    return job, job.manifest.checked_parameters().loaded_cohort()


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _print_rounds(reports: "tuple[RoundReport, ...]") -> None:
    if not reports:
        return
    table = Table(title="Self-training", caption="Agreement: Dice between the labels before and after a round")
    for column in ("round", "trained on", "left out", "agreement", "to look at", "seconds"):
        table.add_column(column)
    for report in reports:
        flagged = [case for case, change in report.changes.items() if change.flagged]
        table.add_row(
            report.name,
            f"{len(report.labelled)} labelled + {len(report.trained)} pseudo-labelled",
            ", ".join(f"{case} ({why})" for case, why in report.left_out.items()) or "-",
            f"{report.agreement:.3f}",
            ", ".join(flagged) or "-",
            f"{report.seconds:.0f}",
        )
    console.print(table)

"""``self-train``: rounds after a pseudo-labelling job; ``predict``: the model on images; ``export-model``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from SSLSegLib.commands.shared import (
    DeviceOption,
    DevicesOption,
    SchedulerOption,
    SeedOption,
    TrainingPreset,
    console,
    say,
)
from SSLSegLib.commands.steps import print_rounds

if TYPE_CHECKING:
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.selftraining.folders import RoundFolder

__all__ = [
    "ConfigurationOption",
    "FirstLabelsOption",
    "RoundsOption",
    "TrainingPresetOption",
    "export_model",
    "predict",
    "self_train",
]

JobArgument = Annotated[Path, typer.Argument(help="A finished pseudo-labelling job.")]
TrainedArgument = Annotated[Path, typer.Argument(help="A job that self-training has trained a model in.")]
RoundOption = Annotated[str | None, typer.Option("--round", help="A round's number, or 'baseline'. Default: the last.")]
TrainingOption = Annotated[
    str, typer.Option(help="Folder of the training in the job, where there are several: self-train says which.")
]
TRAINING = "selftraining"  # jobs.selftraining.WORK; to import it takes longer than to print the help


class FirstLabels(StrEnum):
    """What round 1 is trained on."""

    given = "given"
    best = "best"


class Configuration(StrEnum):
    """nnU-Net's configurations."""

    two_d = "2d"
    three_d = "3d_fullres"


RoundsOption = Annotated[int | None, typer.Option(min=1, help="The most rounds. Default: the preset's.")]
TrainingPresetOption = Annotated[
    TrainingPreset,
    typer.Option(help="quick: minutes on a CPU; standard: hours on a GPU; paper: 1,000 epochs, 3 rounds."),
]
FirstLabelsOption = Annotated[
    FirstLabels | None,
    typer.Option(
        help="Of round 1. given: the pseudo-labels (the paper); best: those, networks of the labelled cases, or the "
        "mean, whichever segments left-out labelled cases best. Default: best, with --preset paper given.",
    ),
]
ConfigurationOption = Annotated[Configuration | None, typer.Option(help="nnU-Net's. Default: the preset's.")]


def self_train(
    job: JobArgument,
    rounds: RoundsOption = None,
    preset: TrainingPresetOption = TrainingPreset.quick,
    configuration: ConfigurationOption = None,
    first_labels: FirstLabelsOption = None,
    device: DevicesOption = None,
    labelled_only: Annotated[
        bool, typer.Option("--labelled-only", help="Train the baseline: the same network on labelled cases only.")
    ] = False,
    revert_to: Annotated[int | None, typer.Option(min=0, help="First undo the rounds after this one.")] = None,
    seed: SeedOption = 42,
    scheduler: SchedulerOption = "local",
) -> None:
    """Refine a job's pseudo-labels by self-training with nnU-Net; ends in a model. Run again to resume.

    A training with other options than the one there is put beside it.
    """
    from SSLSegLib.jobs.cluster_folds import refuse_sending
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.runner import EXIT_CODES, termination_as_interrupt
    from SSLSegLib.jobs.selftraining import WORK, SelfTrainingParameters, refine, require_nnunet
    from SSLSegLib.jobs.terminal import TerminalProgress
    from SSLSegLib.selftraining.choice import read_choice
    from SSLSegLib.selftraining.folders import WorkFolder

    require_nnunet()
    refuse_sending(scheduler)  # a wrong one is said before any work
    opened = Job.open(job)
    parameters = SelfTrainingParameters(
        job=str(opened.folder),
        preset=preset.value,
        rounds=rounds,
        configuration=configuration.value if configuration else None,
        first_labels=first_labels.value if first_labels else None,
        device=tuple(device or ["auto"]),
        labelled_only=labelled_only,
        revert_to=revert_to,
    )
    try:
        with termination_as_interrupt(), TerminalProgress(console) as progress:
            work, reports = refine(opened, parameters, seed=seed, scheduler=scheduler, progress=progress)
    except KeyboardInterrupt:
        say("Cancelled; finished rounds and the last epoch are kept. The same command goes on.")
        raise typer.Exit(EXIT_CODES["cancelled"]) from None
    print_rounds(reports)
    choice = None if labelled_only else read_choice(WorkFolder(work).choice)
    for sentence in choice.sentences() if choice else ():
        say(sentence)
    console.print(f"Model and labels: {work}", soft_wrap=True, highlight=False)
    if work.name != WORK:
        console.print(f"Use it with: predict or export-model --training {work.name}", highlight=False)


def predict(
    job: TrainedArgument,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, one each; left out: the cohort's test cases.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: predictions/ in the job's folder.")] = None,
    round_: RoundOption = None,
    training: TrainingOption = TRAINING,
    device: DeviceOption = "auto",
) -> None:
    """Segment images with the model of a self-training: the average of its folds, and where they disagree."""
    opened, cohort = _open(job)  # first: what a missing job needs is no imports
    trained = _round(opened, training, round_)

    from SSLSegLib.errors import CaseError, CohortError
    from SSLSegLib.jobs.links import refuse_links
    from SSLSegLib.jobs.terminal import TerminalProgress
    from SSLSegLib.selftraining.model import load_model
    from SSLSegLib.selftraining.predict import named_images, predict_files
    from SSLSegLib.weights.device import resolve_device

    for path in images or ():
        if not path.exists():
            raise CaseError(f"There is no file {path}.", remedy="Correct its path.")
    model = load_model(trained)
    if images:
        files = named_images(images)
    else:
        files = {case.id: cohort.image_paths(case) for case in cohort.test}
    if not files:
        raise CohortError("The cohort has no test cases.", remedy="Name the images to segment.")
    if out is None:
        refuse_links(opened.folder)
    output = out or _predictions(opened, training) / model.report.name.replace(" ", "_")
    with TerminalProgress(console) as progress:
        predict_files(
            model, files, cohort.classes, output, device=str(resolve_device(device).device), progress=progress
        )
    console.print(f"Predictions: {output}", soft_wrap=True, highlight=False)


def export_model(
    job: TrainedArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the model folder into.")],
    round_: RoundOption = None,
    training: TrainingOption = TRAINING,
) -> None:
    """Write the model as a standard nnU-Net v2 model folder (nnUNetv2_predict_from_modelfolder, SlicerNNUnet)."""
    opened, cohort = _open(job)  # first: what a missing job needs is no imports
    trained = _round(opened, training, round_)

    from SSLSegLib.selftraining.export import export_model as export

    folder = export(trained, out, cohort)
    console.print(f"nnU-Net model: {folder}", soft_wrap=True, highlight=False)


def _open(path: Path) -> "tuple[Job, Cohort]":
    from SSLSegLib.jobs.folder import Job

    job = Job.open(path)

    from SSLSegLib.jobs.selftraining import labelled_cohort

    return job, labelled_cohort(job)


def _round(job: "Job", training: str, round_: str | None) -> "RoundFolder":
    from SSLSegLib.errors import JobError
    from SSLSegLib.selftraining.model import find_round

    if Path(training).name != training:
        raise JobError(f"{training!r} is no folder of the job.", remedy=f"Name one, such as {TRAINING}-2.")
    return find_round(job.folder / training, round_)


def _predictions(job: "Job", training: str) -> Path:
    """Apart from each other where there are several trainings."""
    return job.folder / "predictions" / ("" if training == TRAINING else training)

"""``unimatch``: train UniMatch v2 on a cohort, with or without a guide, and label its unlabelled cases."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

__all__ = ["unimatch"]


class GuideChoice(StrEnum):
    """Second supervisors."""

    none = "none"
    tffs = "tffs"
    sam2 = "sam2"


class PresetChoice(StrEnum):
    """How long and how large."""

    quick = "quick"
    standard = "standard"
    paper = "paper"


class MethodChoice(StrEnum):
    """What is trained: the method, and baselines on the same network."""

    unimatch = "unimatch"
    supervised = "supervised"
    upper_bound = "upper-bound"
    mean_teacher = "mean-teacher"


def unimatch(
    cohort: Annotated[Path, typer.Argument(help="cohort.json, or the folder it lies in.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; one that was begun is resumed.")],
    guide: Annotated[
        GuideChoice,
        typer.Option(help="none; tffs: pseudo-labels of --guide-job; sam2: --sam2, prompted by the teacher."),
    ] = GuideChoice.none,
    guide_job: Annotated[Path | None, typer.Option(help="A finished pseudo-labelling job, for --guide tffs.")] = None,
    sam2: Annotated[str | None, typer.Option(help="Name in the catalogue or path of a file, for --guide sam2.")] = None,
    preset: Annotated[
        PresetChoice,
        typer.Option(help="quick: small, from scratch, minutes on a CPU; standard: hours on a GPU; paper: DINOv2-B."),
    ] = PresetChoice.quick,
    method: Annotated[
        MethodChoice, typer.Option(help="The method or a baseline; upper-bound also learns from references.")
    ] = MethodChoice.unimatch,
    encoder: Annotated[
        Path | None, typer.Option(help="DINOv2 or UniMatch v2 weights (.pth, .safetensors) to start from.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps. Default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Labelled, and as many unlabelled, slices a step.")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="Side of a view in pixels, whole patches.")] = None,
    test_cases: Annotated[bool, typer.Option("--test-cases", help="Segment the test cases too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw views beside the training.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="All random draws follow from it.")] = 42,
) -> None:
    """Train a specialist (DINOv2 + DPT) by UniMatch v2 and label the unlabelled cases. Run again to resume."""
    from pydantic import ValidationError

    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.cases.preflight import check_cohort, raise_on_errors
    from SSLSegLib.errors import CohortError
    from SSLSegLib.unimatch.options import UniMatchOptions

    try:
        options = UniMatchOptions.of(
            preset.value,
            method=method.value,
            guide=guide.value,
            encoder_weights=str(encoder.resolve()) if encoder else None,
            steps=steps,
            batch=batch,
            size=size,
            seed=seed,
        )
    except ValidationError as error:
        said = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise CohortError(f"These options do not go together: {said}.", remedy="See `unimatch --help`.") from None
    loaded = Cohort.load(cohort)
    raise_on_errors(check_cohort(loaded))

    from SSLSegLib.unimatch.run import train_and_label

    console = Console()
    where = train_and_label(
        loaded,
        out,
        options,
        guide_results=guide_job,
        sam2=sam2,
        device=device,
        workers=workers,
        test_cases=test_cases,
        progress=_Lines(console),
    )
    console.print(f"Model: {where.model}", soft_wrap=True, highlight=False)
    console.print(f"Labels: {where.path / 'results'}", soft_wrap=True, highlight=False)


class _Lines:
    """A progress listener that prints stages, the device and now and then the loss."""

    def __init__(self, console: Console) -> None:
        self.console, self.told = console, 0

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "stage":
            self.console.print(fields["stage"], highlight=False)
        elif event == "device":
            self.console.print(fields["outcome"], highlight=False)
        elif event == "metric" and (10 * fields["step"] // fields["steps"] > self.told):
            self.told = 10 * fields["step"] // fields["steps"]
            self.console.print(
                f"  step {fields['step']} of {fields['steps']}: loss {fields['loss']:.3f}, "
                f"confident {fields['confident']:.0%}, {fields['seconds_per_step']:.2f} s a step",
                highlight=False,
            )
        elif event == "result":
            self.console.print(f"  {fields['case']} done", highlight=False)

"""``unimatch``: train UniMatch v2 on a cohort, with or without a guide, and label its unlabelled cases."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from SSLSegLib.commands.running import run_manifest
from SSLSegLib.commands.shared import (
    BUNDLED,
    BatchOption,
    CohortArgument,
    DevicesOption,
    JobFolderOption,
    ReportOption,
    ResampleOption,
    SceneOption,
    SeedOption,
    StepsOption,
    ThreadsOption,
    TrainingPreset,
    load_checked_cohort,
)
from SSLSegLib.commands.vessa import guide as guided_by_vessa

if TYPE_CHECKING:
    from SSLSegLib.unimatch.options import UniMatchOptions

__all__ = ["unimatch"]


class GuideChoice(StrEnum):
    """Second supervisors."""

    none = "none"
    tffs = "tffs"
    sam2 = "sam2"
    vessa = "vessa"


class MethodChoice(StrEnum):
    """What is trained: the method, and baselines on the same network."""

    unimatch = "unimatch"
    supervised = "supervised"
    upper_bound = "upper-bound"
    mean_teacher = "mean-teacher"


def unimatch(
    cohort: CohortArgument,
    out: JobFolderOption,
    guide: Annotated[
        GuideChoice,
        typer.Option(
            help="none; tffs: pseudo-labels of --guide-job; sam2: --sam2, prompted by the teacher; vessa: templates of "
            "--bank (more options: `vessa guide`)."
        ),
    ] = GuideChoice.none,
    guide_job: Annotated[Path | None, typer.Option(help="A finished pseudo-labelling job, for --guide tffs.")] = None,
    sam2: Annotated[
        str | None, typer.Option(help="Name in the catalogue or path of a file, for --guide sam2 and vessa.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Folder of a template bank, for --guide vessa.")] = None,
    vessa_model: Annotated[
        Path | None, typer.Option(help="Folder of a trained VESSA, for --guide vessa. Without it: --sam2, without VLM.")
    ] = None,
    preset: Annotated[
        TrainingPreset,
        typer.Option(help="quick: small, from scratch, minutes on a CPU; standard: hours on a GPU; paper: DINOv2-B."),
    ] = TrainingPreset.quick,
    method: Annotated[
        MethodChoice, typer.Option(help="The method or a baseline; upper-bound also learns from references.")
    ] = MethodChoice.unimatch,
    encoder: Annotated[
        Path | None, typer.Option(help="DINOv2 or UniMatch v2 weights (.pth, .safetensors) to start from.")
    ] = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    size: Annotated[int | None, typer.Option(min=16, help="Side of a view in pixels, whole patches.")] = None,
    test_cases: Annotated[bool, typer.Option("--test-cases", help="Label the test cases too.")] = False,
    device: DevicesOption = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw views beside the training.")] = 0,
    seed: SeedOption = 42,
    threads: ThreadsOption = None,
    resample_labels: ResampleOption = False,
    report: ReportOption = True,
    scene: SceneOption = True,
) -> None:
    """Train a specialist (DINOv2 + DPT) by UniMatch v2 and label the unlabelled cases. Run again to resume."""
    from SSLSegLib.jobs.specialist import WORK
    from SSLSegLib.jobs.unimatch import unimatch_manifest

    if guide is GuideChoice.vessa:
        _refuse_for_vessa(bank, method, device, workers, test_cases, size, guide_job)
        guided_by_vessa(
            cohort,
            bank,
            out,
            model=vessa_model,
            sam2=sam2 or BUNDLED,
            preset=preset,
            encoder=encoder,
            steps=steps,
            batch=batch,
            device=device[0] if device else "auto",
            seed=seed,
            threads=threads,
            resample_labels=resample_labels,
            report=report,
            scene=scene,
        )
        return
    _refuse_without_vessa(guide, {"--bank": bank, "--vessa-model": vessa_model})
    options = _options(
        preset.value,
        method=method.value,
        guide=guide.value,
        encoder_weights=str(encoder.absolute()) if encoder else None,
        steps=steps,
        batch=batch,
        size=size,
    )
    checked = load_checked_cohort(
        cohort, resample_labels=resample_labels, output=out, unlabelled=1 if options.uses_unlabelled else 0
    )
    manifest = unimatch_manifest(
        checked,
        options,
        guide_job=guide_job,
        sam2=sam2,
        devices=device or ["auto"],
        seed=seed,
        threads=threads,
        workers=workers,
        test_cases=test_cases,
        report=report,
        scene=scene,
    )
    run_manifest(out, manifest, model=f"{WORK}/model")


def _refuse_for_vessa(
    bank: Path | None,
    method: MethodChoice,
    device: list[str] | None,
    workers: int,
    test_cases: bool,
    size: int | None,
    guide_job: Path | None,
) -> None:
    """What a training guided by VESSA needs and cannot do.

    Raises:
        CohortError: Naming it.
    """
    from SSLSegLib.errors import CohortError

    if bank is None:
        raise CohortError("--guide vessa needs a template bank.", remedy="Make one: `vessa bank COHORT --out BANK`.")
    refused = {
        "--method": method is not MethodChoice.unimatch,
        "several --device": bool(device) and len(device) > 1,
        "--workers": workers > 0,
        "--test-cases": test_cases,
        "--size": size is not None,
        "--guide-job": guide_job is not None,
    }
    if given := [name for name, is_given in refused.items() if is_given]:
        raise CohortError(f"--guide vessa does not go with {given[0]}.", remedy="Leave it out.")


def _refuse_without_vessa(guide: GuideChoice, given: dict[str, Path | None]) -> None:
    """VESSA's options with another guide would be of no effect, which nobody means.

    Raises:
        CohortError: Naming the first.
    """
    from SSLSegLib.errors import CohortError

    for flag, value in given.items():
        if value is not None:
            raise CohortError(
                f"{flag} is given, but the guide is '{guide.value}'.",
                remedy=f"Add --guide vessa, or leave {flag} out.",
            )


def _options(preset: str, **changes: object) -> "UniMatchOptions":
    from pydantic import ValidationError

    from SSLSegLib.errors import CohortError
    from SSLSegLib.unimatch.options import UniMatchOptions

    try:
        return UniMatchOptions.of(preset, **changes)
    except ValidationError as error:
        said = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise CohortError(f"These options do not go together: {said}.", remedy="See `unimatch --help`.") from None

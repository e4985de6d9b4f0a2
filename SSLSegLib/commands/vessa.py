"""``vessa bank``, ``train``, ``segment``, ``guide``: VESSA's template bank, stage 1, its use on a cohort, stage 2."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from SSLSegLib.commands.running import run_manifest
from SSLSegLib.commands.shared import (
    BUNDLED,
    BatchOption,
    CohortArgument,
    DeviceOption,
    JobFolderOption,
    KeepAllOption,
    ReportOption,
    ResampleOption,
    SceneOption,
    SeedOption,
    StepsOption,
    ThreadsOption,
    TrainingPreset,
    console,
    load_checked_cohort,
)
from SSLSegLib.commands.vessa_training import DinoOption, Sam2Option, train

if TYPE_CHECKING:
    from SSLSegLib.vessa.features import Features

__all__ = ["app"]

app = typer.Typer(
    help="VESSA: template-guided segmentation with a vision-language model and SAM2's memory.", no_args_is_help=True
)
app.command()(train)

WITHOUT_VLM = (
    "No trained VESSA was named: templates speak through SAM2's memory alone ('without VLM'). "
    "There are no public VESSA weights; train your own with `vessa train`."
)

ModelOption = Annotated[
    Path | None, typer.Option(help="Folder of a trained VESSA. Without it: --sam2 in the mode 'without VLM'.")
]
BankOption = Annotated[Path, typer.Option("--bank", help="Folder of the template bank (see `vessa bank`).")]
WithoutVlmOption = Annotated[
    bool, typer.Option("--without-vlm", help="Run a trained VESSA without its language model.")
]


class Templates(StrEnum):
    """Which candidates count."""

    mean = "mean"
    sample = "sample"
    best = "best"


@app.command()
def bank(
    cohort: CohortArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bank.")],
    model: ModelOption = None,
    sam2: Sam2Option = BUNDLED,
    dino: DinoOption = None,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Slices for each class, evenly spread. Default: all that hold one.")
    ] = None,
    accepted: Annotated[
        Path | None, typer.Option(help="A pseudo-labelling job: its accepted and corrected cases join the bank.")
    ] = None,
    device: DeviceOption = "auto",
    resample_labels: ResampleOption = False,
) -> None:
    """Make a template bank of the labelled cases of a cohort, or let the bank in that folder grow."""
    from SSLSegLib.jobs.vessa import load_features
    from SSLSegLib.vessa.bank_files import refuse_other_files
    from SSLSegLib.vessa.slices import CohortSlices
    from SSLSegLib.vessa.templates import BANK, TemplateBank, chosen_slices

    refuse_other_files(out)  # said before any work
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, unlabelled=0)
    features = load_features(model, sam2, dino, device)
    with console.status("Reading labelled cases"):
        slices = CohortSlices(checked)
        made = TemplateBank.of(slices, features, chosen_slices(slices, per_class))
        if accepted is not None:
            made = _with_accepted(made, checked, accepted, features, per_class)
        if (out / BANK).is_file():
            made = TemplateBank.load(out).grown(made)
        made.save(out)
    held = {name: sum(name in each.targets for each in made.templates) for name in _names(checked)}
    shown = ", ".join(f"{name} in {count}" for name, count in held.items())
    console.print(f"{len(made)} templates ({shown}): {out}", soft_wrap=True, highlight=False)


@app.command()
def segment(
    cohort: CohortArgument,
    templates: BankOption,
    out: JobFolderOption,
    model: ModelOption = None,
    sam2: Sam2Option = BUNDLED,
    without_vlm: WithoutVlmOption = False,
    dino: DinoOption = None,
    use: Annotated[
        Templates, typer.Option(help="mean over the candidates, one sampled as in the paper, or the best.")
    ] = Templates.mean,
    top: Annotated[int, typer.Option(min=1, help="Candidates.")] = 3,
    position_weight: Annotated[
        float, typer.Option(min=0, help="How much a template of another level of the body counts less.")
    ] = 0.0,
    named: Annotated[
        bool, typer.Option("--named", help="Tell the language model the class's name (for a VESSA trained so).")
    ] = False,
    threshold: Annotated[float, typer.Option(min=0.01, max=0.99, help="Foreground above this probability.")] = 0.5,
    keep_all_components: KeepAllOption = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 42,
    threads: ThreadsOption = None,
    resample_labels: ResampleOption = False,
    report: ReportOption = True,
    scene: SceneOption = True,
) -> None:
    """Pseudo-label every unlabelled case of a cohort by VESSA."""
    from SSLSegLib.jobs.vessa import vessa_manifest
    from SSLSegLib.vessa.options import VessaOptions

    options = VessaOptions(
        templates=use.value,
        top=top,
        position_weight=position_weight,
        named=named,
        threshold=threshold,
        largest_component=not keep_all_components,
    )
    if model is None:
        console.print(WITHOUT_VLM, style="yellow", highlight=False)
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, output=out)
    manifest = vessa_manifest(
        checked,
        templates,
        options,
        model=model,
        language=not without_vlm,
        sam2=sam2 if model is None else None,
        dino=dino,
        seed=seed,
        device=device,
        threads=threads,
        report=report,
        scene=scene,
    )
    run_manifest(out, manifest)


@app.command()
def guide(
    cohort: CohortArgument,
    templates: BankOption,
    out: JobFolderOption,
    model: ModelOption = None,
    sam2: Sam2Option = BUNDLED,
    without_vlm: WithoutVlmOption = False,
    dino: DinoOption = None,
    preset: Annotated[TrainingPreset, typer.Option(help="Of UniMatch v2, see `unimatch`.")] = TrainingPreset.quick,
    encoder: Annotated[
        Path | None, typer.Option(help="DINOv2 or UniMatch v2 weights for the specialist to start from.")
    ] = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    feedback: Annotated[bool, typer.Option(help="Prompt VESSA with the teacher's prediction.")] = True,
    start: Annotated[float, typer.Option(min=0, max=1, help="Part of the training before the feedback begins.")] = 0.25,
    device: DeviceOption = "auto",
    seed: SeedOption = 42,
    threads: ThreadsOption = None,
    resample_labels: ResampleOption = False,
    report: ReportOption = True,
    scene: SceneOption = True,
) -> None:
    """Train a specialist by UniMatch v2 with VESSA as its guide (stage 2), and label the unlabelled cases by it."""
    from SSLSegLib.jobs.specialist import WORK
    from SSLSegLib.jobs.vessa_guided import guided_manifest
    from SSLSegLib.unimatch.options import Prompting
    from SSLSegLib.vessa.guide import GuidedOptions
    from SSLSegLib.vessa.options import VessaOptions

    training = GuidedOptions.of(
        preset.value,
        encoder_weights=str(encoder.absolute()) if encoder else None,
        steps=steps,
        batch=batch,
        feedback=feedback,
        prompting=Prompting(start=start),
    )
    if model is None:
        console.print(WITHOUT_VLM, style="yellow", highlight=False)
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, output=out)
    manifest = guided_manifest(
        checked,
        templates,
        VessaOptions(),
        training.model_dump(mode="json"),
        model=model,
        language=not without_vlm,
        sam2=sam2 if model is None else None,
        dino=dino,
        seed=seed,
        device=device,
        threads=threads,
        report=report,
        scene=scene,
    )
    run_manifest(out, manifest, model=f"{WORK}/model")


def _with_accepted(made: Any, cohort: Any, job: Path, features: "Features", per_class: int | None) -> Any:
    """The bank, and slices of the cases of a job whose labels a person has accepted or corrected."""
    from SSLSegLib.vessa.slices import CohortSlices, accepted_cases
    from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

    cases = accepted_cases(cohort, job)
    if not cases:
        console.print(f"No case of {job} has been accepted or corrected.", style="yellow", highlight=False)
        return made
    slices = CohortSlices(cohort, cases)
    return made.grown(TemplateBank.of(slices, features, chosen_slices(slices, per_class), origin="accepted"))


def _names(cohort: Any) -> list[str]:
    return [each.name for each in cohort.classes]

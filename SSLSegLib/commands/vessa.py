"""``vessa bank``, ``train``, ``segment``, ``guide``: VESSA's template bank, stage 1, its use on a cohort, stage 2."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

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
from SSLSegLib.commands.vessa_bank import ModelOption, bank
from SSLSegLib.commands.vessa_training import DinoOption, Sam2Option, train

__all__ = ["app"]

app = typer.Typer(
    help="VESSA: template-guided segmentation with a vision-language model and SAM2's memory.", no_args_is_help=True
)
app.command()(bank)
app.command()(train)

WITHOUT_VLM = (
    "No trained VESSA was named: templates speak through SAM2's memory alone ('without VLM'). "
    "There are no public VESSA weights; train your own with `vessa train`."
)

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
    from SSLSegLib.jobs.vessa import require_parts, vessa_manifest
    from SSLSegLib.vessa.options import VessaOptions

    options = VessaOptions(
        templates=use.value,
        top=top,
        position_weight=position_weight,
        named=named,
        threshold=threshold,
        largest_component=not keep_all_components,
    )
    require_parts(model, templates)
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
    from SSLSegLib.jobs.vessa import require_parts
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
    require_parts(model, templates)
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

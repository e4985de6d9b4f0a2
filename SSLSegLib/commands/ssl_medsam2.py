"""``ssl-medsam2``: the whole first method on a cohort, from pseudo-labels to a trained model and one report."""

from typing import Annotated

import typer

from SSLSegLib.commands.running import create_job, print_outputs, run_in_terminal
from SSLSegLib.commands.selftraining import ConfigurationOption, FirstLabelsOption, RoundsOption, TrainingPresetOption
from SSLSegLib.commands.shared import (
    BUNDLED,
    CohortArgument,
    CpuIfNeededOption,
    DevicesOption,
    InsertionsOption,
    JobFolderOption,
    KeepAllOption,
    PlaceOption,
    PrecisionOption,
    Preset,
    ReportOption,
    ResampleOption,
    SceneOption,
    SchedulerOption,
    SeedOption,
    ThreadsOption,
    ThresholdOption,
    TrainingPreset,
    WeightsOption,
    load_checked_cohort,
    say,
    tffs_options,
)
from SSLSegLib.commands.steps import print_steps

__all__ = ["ssl_medsam2"]


def ssl_medsam2(
    cohort: CohortArgument,
    out: JobFolderOption,
    rounds: RoundsOption = None,
    preset: TrainingPresetOption = TrainingPreset.quick,
    configuration: ConfigurationOption = None,
    first_labels: FirstLabelsOption = None,
    labelled_only: Annotated[
        bool,
        typer.Option(
            "--labelled-only",
            help="Also train the baseline: the same network on labelled cases only, compared on the test cases.",
        ),
    ] = False,
    weights: WeightsOption = BUNDLED,
    tffs_preset: Annotated[
        Preset | None, typer.Option(help="Of the pseudo-labels. Fills in what is not given: fast, balanced, paper.")
    ] = None,
    insertions: InsertionsOption = None,
    precision: PrecisionOption = None,
    threshold: ThresholdOption = None,
    keep_all_components: KeepAllOption = False,
    place: PlaceOption = None,
    device: DevicesOption = None,
    seed: SeedOption = 42,
    threads: ThreadsOption = None,
    resample_labels: ResampleOption = False,
    report: ReportOption = True,
    scene: SceneOption = True,
    cpu_if_needed: CpuIfNeededOption = False,
    scheduler: SchedulerOption = "local",
) -> None:
    """Pseudo-labels, self-training, a model, and the test cases by it (SSL-MedSAM2). Run again to resume.

    What `tffs` and `self-train` do one after the other, as one job; the same options mean the same.
    """
    from SSLSegLib.errors import CohortError
    from SSLSegLib.jobs.cluster_folds import refuse_sending
    from SSLSegLib.jobs.selftraining import WORK, require_nnunet
    from SSLSegLib.jobs.ssl_medsam2 import ssl_medsam2_manifest
    from SSLSegLib.processes import as_argument
    from SSLSegLib.selftraining.options import SelfTrainingOptions

    require_nnunet()
    refuse_sending(scheduler)  # a wrong one is said before any work
    options = tffs_options(tffs_preset, insertions, precision, threshold, keep_all_components, place)
    devices = tuple(device or ["auto"])
    training = SelfTrainingOptions.of(
        preset.value,
        rounds=rounds,
        configuration=configuration.value if configuration else None,
        first_labels=first_labels.value if first_labels else None,
        devices=devices,
        seed=seed,
    )
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, output=out)
    if labelled_only and not any(case.reference for case in checked.test):
        raise CohortError(
            "There is no test case with a reference to compare the baseline on.",
            remedy="Leave --labelled-only out; `self-train JOB --labelled-only` trains it without a comparison.",
        )
    manifest = ssl_medsam2_manifest(
        checked,
        weights,
        options,
        training,
        seed=seed,
        baseline=labelled_only,
        device=devices[0],
        threads=threads,
        report=report,
        scene=scene,
    )
    job = create_job(out, manifest, scheduler=scheduler, cpu_if_needed=cpu_if_needed)
    run_in_terminal(job, checked=True)
    print_steps(job, checked)
    print_outputs(job)
    for sentence in (
        f"Model and labels: {job.folder / WORK}",
        f"New scans by it: python -m SSLSegLib predict {as_argument(job.folder)} IMAGES",
    ):
        say(sentence)

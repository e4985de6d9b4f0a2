"""``tffs``: pseudo-labels for every unlabelled case; ``run``: run or resume a job; ``expect``: leave one out."""

from pathlib import Path
from typing import Annotated

import typer

from SSLSegLib.commands.running import create_job, print_outputs, run_in_terminal, run_manifest
from SSLSegLib.commands.shared import (
    BUNDLED,
    CohortArgument,
    CpuIfNeededOption,
    DeviceOption,
    InsertionsOption,
    JobFolderOption,
    KeepAllOption,
    PlaceOption,
    PrecisionOption,
    PresetOption,
    ReportOption,
    ResampleOption,
    SceneOption,
    SchedulerOption,
    SeedOption,
    ThreadsOption,
    ThresholdOption,
    WeightsOption,
    console,
    load_checked_cohort,
    print_scores,
    tffs_options,
)

__all__ = ["expect", "run", "tffs"]


def tffs(
    cohort: CohortArgument,
    out: JobFolderOption,
    weights: WeightsOption = BUNDLED,
    preset: PresetOption = None,
    insertions: InsertionsOption = None,
    precision: PrecisionOption = None,
    threshold: ThresholdOption = None,
    keep_all_components: KeepAllOption = False,
    place: PlaceOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 42,
    threads: ThreadsOption = None,
    resample_labels: ResampleOption = False,
    report: ReportOption = True,
    scene: SceneOption = True,
    cpu_if_needed: CpuIfNeededOption = False,
    scheduler: SchedulerOption = "local",
) -> None:
    """Pseudo-label every unlabelled case of a cohort, without any training (TFFS-MedSAM2)."""
    from SSLSegLib.jobs.schedulers import is_local
    from SSLSegLib.jobs.tffs import tffs_manifest

    options = tffs_options(preset, insertions, precision, threshold, keep_all_components, place)
    is_local(scheduler)  # a wrong one is said before any work
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, output=out)
    manifest = tffs_manifest(
        checked, weights, options, seed=seed, device=device, threads=threads, report=report, scene=scene
    )
    run_manifest(out, manifest, scheduler=scheduler, cpu_if_needed=cpu_if_needed)


def run(
    job: Annotated[Path, typer.Argument(help="A job folder, or a manifest.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Repeat the manifest in this new folder instead of resuming.")
    ] = None,
    cpu_if_needed: CpuIfNeededOption = False,
    scheduler: SchedulerOption = "local",
) -> None:
    """Run or resume a job, or repeat its manifest elsewhere: on the same machine the result is the same to the bit."""
    from SSLSegLib.errors import JobError
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.manifest import read_manifest

    if out is not None:
        manifest = read_manifest(job / "manifest.json" if job.is_dir() else job)
        opened = create_job(out, manifest, scheduler=scheduler, cpu_if_needed=cpu_if_needed)
    elif job.is_dir() or job.name == "manifest.json":
        opened = Job.open(job)
        opened.scheduler, opened.cpu_if_needed = scheduler, cpu_if_needed
    else:
        raise JobError(f"{job} does not lie in a job folder.", remedy="Name a folder for the job with --out.")
    run_in_terminal(opened)
    print_outputs(opened)


def expect(
    cohort: CohortArgument,
    weights: WeightsOption = BUNDLED,
    preset: PresetOption = None,
    insertions: InsertionsOption = None,
    precision: PrecisionOption = None,
    threshold: ThresholdOption = None,
    keep_all_components: KeepAllOption = False,
    place: PlaceOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 42,
    threads: ThreadsOption = None,
    resample_labels: ResampleOption = False,
) -> None:
    """Estimate the quality to expect: each labelled case is predicted from the other labelled ones and scored."""
    from SSLSegLib.jobs.labelling import threads_here
    from SSLSegLib.jobs.left_out import segment_left_out
    from SSLSegLib.jobs.terminal import TerminalProgress
    from SSLSegLib.pipelines import advice

    options = tffs_options(preset, insertions, precision, threshold, keep_all_components, place)
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, labelled=2, unlabelled=0)
    with TerminalProgress(console) as progress:
        scores = segment_left_out(
            checked,
            weights,
            options,
            device=device,
            threads=threads or threads_here(),
            loaded=lambda model: console.print(model.device_outcome, highlight=False),
            seed=seed,
            progress=progress,
        )
    print_scores(scores, f"Leave one out over {len(scores)} labelled cases of {checked.name}")
    for warning in advice(scores):
        console.print(warning, style="yellow", highlight=False)

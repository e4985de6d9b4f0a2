"""``demo``: the main job from beginning to end on generated scans, or on the user's own cohort."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from SSLSegLib.commands.shared import (
    BUNDLED,
    DeviceOption,
    ThreadsOption,
    TrainingPreset,
    WeightsOption,
    console,
    print_scores,
    say,
)
from SSLSegLib.commands.steps import print_steps

if TYPE_CHECKING:
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.selftraining.options import SelfTrainingOptions

__all__ = ["demo"]

_SEED = 2026
_LABELLED = 2  # few enough that the unlabelled scans have something to add; three teach nnU-Net nearly everything
_TEST_CASES = 4
_FOLDS = 2  # of the six unlabelled scans: on two cores both train side by side, and all of it stays within minutes


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where everything is written.")] = Path("demo-output"),
    cohort: Annotated[Path | None, typer.Option(help="Your own cohort.json instead of generated scans.")] = None,
    self_training: Annotated[
        bool | None,
        typer.Option(
            "--self-training/--no-self-training",
            help="After the pseudo-labels, train networks on them. Default: on generated scans only; on your own "
            "scans it can take hours on a CPU.",
        ),
    ] = None,
    preset: Annotated[
        TrainingPreset,
        typer.Option(help="Of the self-training. quick: minutes on generated scans; standard, paper: a GPU."),
    ] = TrainingPreset.quick,
    weights: WeightsOption = BUNDLED,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Pseudo-labels, self-training, a model and one report, with the bundled weights; needs no network.

    Run again to resume. A finished run is shown again only if scans, settings, weights and software are the same.
    """
    from SSLSegLib.cases.phantoms import make_phantom_cohort
    from SSLSegLib.commands.running import print_outputs, run_in_terminal
    from SSLSegLib.commands.shared import load_checked_cohort
    from SSLSegLib.jobs.outcome import score_results
    from SSLSegLib.processes import as_argument
    from SSLSegLib.selftraining.options import SelfTrainingOptions

    generated = cohort is None
    if cohort is None:
        with console.status("Generating scans"):
            make_phantom_cohort(out / "phantom", seed=_SEED, labelled=_LABELLED, test=_TEST_CASES)
        cohort = out / "phantom"
    checked = load_checked_cohort(cohort, output=out)
    train = generated if self_training is None else self_training
    training = None
    if train:
        folds = _FOLDS if generated and preset is TrainingPreset.quick else None
        training = SelfTrainingOptions.of(preset.value, folds=folds, devices=("auto",))
    job = _job(out, checked, weights, training, device=device, threads=threads)
    if train and not generated:
        say(
            "Self-training on your own scans can take hours on a CPU. It can be stopped at any time (Ctrl-C): the same "
            "command goes on where it was."
        )
    run_in_terminal(job, checked=not train)  # a training also needs nnU-Net, which the job looks for first
    if train:
        print_steps(job, checked)
    elif scores := score_results(job, checked):
        print_scores(scores, f"Pseudo-labels of {checked.name} against their references")
    else:
        say("No unlabelled case has a reference, so there is nothing to score against.")
    if not train and not generated:
        say(f"Next, a model for new scans (hours on a CPU): python -m SSLSegLib self-train {as_argument(job.folder)}")
    print_outputs(job)


def _job(
    out: Path,
    cohort: "Cohort",
    weights: str,
    training: "SelfTrainingOptions | None",
    *,
    device: str,
    threads: int | None,
) -> "Job":
    """The job of exactly this work and software; others stay beside it, and both are said."""
    from SSLSegLib.commands.running import create_job
    from SSLSegLib.jobs.fingerprint import fingerprint
    from SSLSegLib.jobs.folder import short_name
    from SSLSegLib.jobs.ssl_medsam2 import ssl_medsam2_manifest
    from SSLSegLib.jobs.tffs import tffs_manifest
    from SSLSegLib.tffs.options import TffsOptions

    if training is None:
        manifest = tffs_manifest(cohort, weights, TffsOptions(), device=device, threads=threads)
    else:
        manifest = ssl_medsam2_manifest(cohort, weights, TffsOptions(), training, device=device, threads=threads)
    stem = f"job-{short_name(cohort.name)}"
    folder = out / f"{stem}-{fingerprint(manifest)}"
    others = [path.name for path in sorted(out.glob(f"{stem}-*")) if path.name != folder.name and path.is_dir()]
    job = create_job(folder, manifest)
    state = job.state()
    if state.status == "finished":
        say(
            f"This was done on {state.ended} with the same scans, settings, weights and software; it is shown again. "
            f"Delete {job.folder} to compute it anew."
        )
    elif state.started is not None:
        say(f"Going on with {job.folder}.")
    if others:
        say(f"Not shown, since made with other settings, weights or software: {', '.join(others)}.")
    return job

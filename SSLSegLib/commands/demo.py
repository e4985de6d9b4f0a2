"""``demo``: the main job from beginning to end on generated scans, or on the user's own cohort."""

from pathlib import Path
from typing import Annotated

import typer

from SSLSegLib.commands.shared import BUNDLED, DeviceOption, ThreadsOption, WeightsOption, console, print_scores

__all__ = ["demo"]

_SEED = 2026


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where everything is written.")] = Path("demo-output"),
    cohort: Annotated[Path | None, typer.Option(help="Your own cohort.json instead of generated scans.")] = None,
    weights: WeightsOption = BUNDLED,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Pseudo-label a cohort with the bundled weights and show what comes out; needs no network."""
    from SSLSegLib.cases.phantoms import make_phantom_cohort
    from SSLSegLib.commands.shared import load_checked_cohort
    from SSLSegLib.commands.tffs import print_outputs, run_in_terminal
    from SSLSegLib.jobs.folder import Job, short_name
    from SSLSegLib.jobs.outcome import score_results
    from SSLSegLib.jobs.tffs import tffs_manifest
    from SSLSegLib.tffs.options import TffsOptions

    if cohort is None:
        with console.status("Generating scans"):
            make_phantom_cohort(out / "phantom", seed=_SEED)
        cohort = out / "phantom"
    checked = load_checked_cohort(cohort, output=out)
    manifest = tffs_manifest(checked, weights, TffsOptions(), device=device, threads=threads)
    job = Job.create(out / f"job-{short_name(checked.name)}", manifest)
    run_in_terminal(job, checked=True)
    scores = score_results(job, checked)
    if scores:
        print_scores(scores, f"Pseudo-labels of {checked.name} against their references")
    else:
        console.print("No unlabelled case has a reference, so there is nothing to score against.")
    print_outputs(job)

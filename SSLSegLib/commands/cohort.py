"""``cohort init | check``: describe one's own data; ``phantom``: generate data to try things on."""

from pathlib import Path
from typing import Annotated

import typer

from SSLSegLib.commands.shared import CohortArgument, ResampleOption, SeedOption, console, load_checked_cohort

__all__ = ["app", "phantom"]

app = typer.Typer(help="Describe your data in a cohort.json, and check it.", no_args_is_help=True)


@app.command()
def check(
    cohort: CohortArgument,
    resample_labels: ResampleOption = False,
    output: Annotated[Path | None, typer.Option(help="A folder that a job is to be written to: check it too.")] = None,
) -> None:
    """Read every file and say what is wrong, before any work starts."""
    checked = load_checked_cohort(cohort, resample_labels=resample_labels, output=output)
    classes = ", ".join(segment.name for segment in checked.classes)
    console.print(
        f"[green]{checked.name} is fine:[/] {len(checked.labelled)} labelled, {len(checked.unlabelled)} unlabelled, "
        f"{len(checked.test)} test cases; {classes}."
    )


def phantom(
    folder: Annotated[Path, typer.Argument(help="Where to write the cohort.")],
    seed: SeedOption = 42,
    labelled: Annotated[int, typer.Option(min=1, help="Labelled cases.")] = 3,
    unlabelled: Annotated[int, typer.Option(min=0, help="Unlabelled cases.")] = 6,
    test: Annotated[int, typer.Option(min=0, help="Test cases.")] = 2,
) -> None:
    """Generate a cohort of phantom scans (abdominal organs), with references to score by."""
    from SSLSegLib.cases.phantoms import make_phantom_cohort

    with console.status("Generating"):
        cohort = make_phantom_cohort(folder, seed=seed, labelled=labelled, unlabelled=unlabelled, test=test)
    console.print(f"{len(cohort.cases)} cases: {folder / 'cohort.json'}", soft_wrap=True, highlight=False)

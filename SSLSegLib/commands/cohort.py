"""``cohort init | check``: describe one's own data; ``phantom``: generate data to try things on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from SSLSegLib.commands.shared import CohortArgument, ResampleOption, SeedOption, console, load_checked_cohort

if TYPE_CHECKING:
    from SSLSegLib.cases.cohort import Window

__all__ = ["app", "phantom"]

app = typer.Typer(help="Describe your data in a cohort.json, and check it.", no_args_is_help=True)


@app.command()
def init(
    folders: Annotated[
        list[Path], typer.Argument(help="A folder (images/ and labels/, nnU-Net raw, DICOM series), or series folders.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write. Default: cohort.json in the folder.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the cohort. Default: the folder's.")] = None,
    modality: Annotated[str | None, typer.Option(help="MR, CT, ... Default: what the files say, else MR.")] = None,
    window: Annotated[str | None, typer.Option(help="CT window LEVEL,WIDTH in HU. Default: 40,400.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Such as 1=liver,2=spleen. Default: what the labels hold.")
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(help="Ids of the cases to learn from, such as a,b,c: the labels of all others only score."),
    ] = None,
    test: Annotated[str | None, typer.Option(help="Ids of test cases; needs --labelled.")] = None,
) -> None:
    """Write a first cohort.json from a folder; look it over and correct it, above all names of classes."""
    from SSLSegLib.cases.discover import discover_cohort
    from SSLSegLib.errors import CohortError
    from SSLSegLib.evaluation.commands import parse_classes

    target = out or folders[0] / "cohort.json"
    if target.exists():
        raise CohortError(f"{target} is there already.", remedy="Name another file with --out, or remove it.")
    if test and not labelled:
        raise CohortError("--test needs --labelled.", remedy="Name the labelled cases too.")
    found = discover_cohort(
        folders[0] if len(folders) == 1 else folders,
        name=name,
        modality=modality,
        window=_window(window) if window else None,
        classes=parse_classes(classes) if classes else None,
    )
    if labelled:
        found = found.with_roles(labelled=labelled.split(","), test=test.split(",") if test else ())
    saved = found.save(target)
    console.print(
        f"{target}: {len(saved.labelled)} labelled, {len(saved.unlabelled)} unlabelled, {len(saved.test)} test cases; "
        f"classes: {', '.join(f'{segment.value} = {segment.name}' for segment in saved.classes)}.",
        soft_wrap=True,
        highlight=False,
    )


def _window(text: str) -> "Window":
    from SSLSegLib.cases.cohort import Window
    from SSLSegLib.errors import CohortError

    try:
        level, width = (float(number) for number in text.split(","))
        return Window(level=level, width=width)
    except ValueError:
        raise CohortError(f"'{text}' is no CT window.", remedy="Write LEVEL,WIDTH, such as 40,400.") from None


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

"""``vessa bank``: make a template bank, let it grow, look at it, take templates out."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from SSLSegLib.commands.shared import BUNDLED, DeviceOption, ResampleOption, console, load_checked_cohort
from SSLSegLib.commands.vessa_training import DinoOption, Sam2Option
from SSLSegLib.errors import CohortError

if TYPE_CHECKING:
    from SSLSegLib.vessa.bank_check import BankCheck
    from SSLSegLib.vessa.features import Features

__all__ = ["ModelOption", "bank"]

ModelOption = Annotated[
    Path | None, typer.Option(help="Folder of a trained VESSA. Without it: --sam2 in the mode 'without VLM'.")
]


def bank(
    cohort: Annotated[
        Path,
        typer.Argument(
            metavar="COHORT|BANK",
            help="cohort.json or its folder; the folder of a bank with --list, --remove and --remove-damaged.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the bank to make or to grow.")] = None,
    model: ModelOption = None,
    sam2: Sam2Option = BUNDLED,
    dino: DinoOption = None,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Slices for each class, evenly spread. Default: all that hold one.")
    ] = None,
    accepted: Annotated[
        Path | None, typer.Option(help="A pseudo-labelling job: its accepted and corrected cases join the bank.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the templates of the bank.")] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Take the templates of this name out of the bank, 'scan_01*' all that begin so. Repeatable."),
    ] = None,
    remove_damaged: Annotated[
        bool, typer.Option("--remove-damaged", help="Take out the templates whose files are missing or damaged.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before files are deleted.")] = False,
    device: DeviceOption = "auto",
    resample_labels: ResampleOption = False,
) -> None:
    """Make a template bank of the labelled cases of a cohort, or let it grow; list a bank, or take templates out.

    COHORT --out BANK makes it or lets it grow, BANK --list shows it, BANK --remove NAME takes templates out.
    """
    if listed or remove or remove_damaged:
        if out is not None:
            raise CohortError(
                "--list and --remove go with the folder of a bank, not with --out.",
                remedy=f"Name the bank alone: `vessa bank {out} --list`.",
            )
        if remove or remove_damaged:
            _remove(cohort, remove or [], remove_damaged, yes)
        if listed:
            _list(cohort)
        return
    if out is None:
        raise CohortError(
            "No folder is named for the bank.", remedy="Add --out BANK; `vessa bank BANK --list` shows a bank."
        )
    _make(cohort, out, model, sam2, dino, per_class, accepted, device, resample_labels)


def _make(
    cohort: Path,
    out: Path,
    model: Path | None,
    sam2: str,
    dino: Path | None,
    per_class: int | None,
    accepted: Path | None,
    device: str,
    resample_labels: bool,
) -> None:
    from SSLSegLib.jobs.vessa import load_features
    from SSLSegLib.vessa.bank_check import require_whole
    from SSLSegLib.vessa.bank_files import BANK, refuse_other_files
    from SSLSegLib.vessa.slices import CohortSlices
    from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

    refuse_other_files(out)  # said before any work
    if (out / BANK).is_file():
        require_whole(out)
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


def _list(folder: Path) -> None:
    """Show what a bank holds, one template a line."""
    from rich.table import Table

    from SSLSegLib.vessa.bank_check import check_bank

    check = check_bank(folder)
    table = Table(title=f"{len(check.record.templates)} templates, indexed by {check.record.features}")
    table.add_column("template", no_wrap=True)  # to be copied
    for column in ("classes", "label", "added", "state"):
        table.add_column(column, overflow="fold")
    origins = {"label": "drawn", "accepted": "accepted"}
    for each in check.record.templates:
        damage = check.damaged.get(each.id)
        state = f"[red]{damage}[/]" if damage else "whole"
        table.add_row(each.id, ", ".join(each.targets), origins[each.origin], each.added[:10], state)
    console.print(table)
    if check.damaged:
        console.print(check.problem(), style="yellow", soft_wrap=True, highlight=False)


def _remove(folder: Path, names: list[str], damaged: bool, yes: bool) -> None:
    """Take templates out, after a yes."""
    from SSLSegLib.vessa.bank_check import check_bank
    from SSLSegLib.vessa.bank_files import remove_templates

    check = check_bank(folder)
    chosen = _chosen(check, names) | (set(check.damaged) if damaged else set())
    if not chosen:
        console.print("No template is damaged; nothing was changed.", highlight=False)
        return
    question = f"Take {len(chosen)} of {len(check.record.templates)} templates out of {folder} and delete their files?"
    if not yes and not typer.confirm(question, default=False):
        console.print("Nothing was changed.")
        return
    left = remove_templates(folder, chosen)
    console.print(f"{len(chosen)} templates taken out, {left} left: {folder}", soft_wrap=True, highlight=False)


def _chosen(check: "BankCheck", names: list[str]) -> set[str]:
    """The templates that are named.

    Raises:
        CohortError: A name is none of theirs.
    """
    chosen: set[str] = set()
    for name in names:
        found = {each.id for each in check.record.templates if fnmatchcase(each.id, name)}
        if not found:
            raise CohortError(
                f"The bank holds no template '{name}'.", remedy="--list shows their names. Nothing was changed."
            )
        chosen |= found
    return chosen


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

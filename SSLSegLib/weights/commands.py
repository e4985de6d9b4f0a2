"""The command line's ``weights``: list | download | verify | delete | where."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import SSLSegError, WeightsError
from .catalogue import CatalogueEntry, entry_named, load_catalogue
from .download import download_weights, licence_text
from .removal import InstalledWeights, delete_weights, installed_weights
from .store import Verification, default_weights_folder, find_weights, verify_weights, weights_folders

__all__ = ["app"]

app = typer.Typer(help="Model weights: what there is, where it lies, whether it is intact.", no_args_is_help=True)

_Folder = Annotated[Path | None, typer.Option(help="Look here first. Default: SSLSEG_WEIGHTS or the user's cache.")]
_VERDICTS = {
    "ok": "[green]ok[/] (SHA-256 of the catalogue)",
    "pinned": "[green]ok[/] (SHA-256 of the first download)",
    "unchecked": "[yellow]unchecked[/] (no SHA-256 known)",
    "wrong": "[red]wrong file[/]",
    "missing": "[red]missing[/]",
}


@app.command("list")
def list_weights(folder: _Folder = None) -> None:
    """Show the catalogue and what is on this machine."""
    table = Table(title="Weights", caption=f"Folder: {_folders(folder)}")
    table.add_column("name", no_wrap=True)  # to be copied
    for column in ("for", "size", "licence", "here"):
        table.add_column(column, overflow="fold")
    installed = {each.entry.name: each for each in reversed(installed_weights(folder))}  # the first folder's counts
    for entry in load_catalogue().values():
        here = _here(installed.get(entry.name), complete=_location(entry, folder) is not None)
        table.add_row(entry.name, entry.purpose, _size(entry.size), entry.licence, here)
    Console().print(table)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="Name in the catalogue.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="I have read the licence and accept it.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to. Default: SSLSEG_WEIGHTS or the user's cache.")] = None,
) -> None:
    """Download weights after their licence has been accepted; a download that broke off continues."""
    console = Console()
    with _plain_errors(console):
        entry = entry_named(name)
        console.print(f"[bold]{entry.name}[/] ({_size(entry.size)}) from {entry.source}: {entry.purpose}")
        console.print(licence_text(entry), highlight=False)
        consent = yes or bool(_location(entry, folder)) or typer.confirm("Do you accept the licence?", default=False)
        with _TransferBar(console) as bar:
            path = download_weights(entry.name, folder, consent=consent, progress=bar)
        console.print(f"[green]Done:[/] {path}", soft_wrap=True)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Name in the catalogue. Default: all that are here.")] = None,
    folder: _Folder = None,
) -> None:
    """Compare files with their SHA-256; exit code 1 if one is wrong, or if NAME is missing."""
    console = Console()
    with _plain_errors(console):
        if name is None:
            names = [entry.name for entry in load_catalogue().values() if _location(entry, folder, complete=False)]
        else:
            names = [entry_named(name).name]
        found: list[Verification] = [result for each in names for result in verify_weights(each, folder)]
    table = Table("name", "file", "outcome", "SHA-256")
    for result in found:
        table.add_row(result.name, result.path.name, _VERDICTS[result.outcome], result.sha256 or "")
    console.print(table if found else f"No weights are in {_folders(folder)}.")
    if any(result.outcome in ("wrong", "missing") for result in found):
        raise typer.Exit(1)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name in the catalogue.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where they lie. Default: SSLSEG_WEIGHTS or the user's cache.")
    ] = None,
) -> None:
    """Delete downloaded weights; files that were not downloaded, and weights in use, stay."""
    console = Console()
    with _plain_errors(console):
        entry = entry_named(name)
        root = default_weights_folder() if folder is None else folder.expanduser()
        size = sum(each.size for each in installed_weights(folder) if each.location == root / entry.relative_path)
        question = f"Delete {entry.name} ({_size(size)}) from {root}?"
        if not yes and size and not typer.confirm(question, default=False):
            console.print("Nothing was deleted.")
            return
        freed = delete_weights(entry.name, folder)
        console.print(f"[green]Deleted:[/] {entry.name}, {_size(freed)} freed in {root}", soft_wrap=True)


@app.command()
def where(
    name: Annotated[str | None, typer.Argument(help="Name in the catalogue. Default: the folder itself.")] = None,
    folder: _Folder = None,
) -> None:
    """Print the path of weights, or the folder that downloads go to."""
    console = Console()
    with _plain_errors(console):
        path = default_weights_folder() if name is None else find_weights(name, folder)
    print(path)


class _TransferBar(Progress):
    """A rich progress bar that is a ``progress.Progress`` listener."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console
        )
        self._tasks_by_file: dict[str, TaskID] = {}

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "warning":
            self.console.print(fields["message"], style="yellow", soft_wrap=True)
        if event != "progress":
            return
        file = fields["file"]
        if file not in self._tasks_by_file:
            self._tasks_by_file[file] = self.add_task(file, total=fields["total"])
        self.update(self._tasks_by_file[file], completed=fields["done"], total=fields["total"])


class _plain_errors:  # noqa: N801  a context manager that reads as a phrase
    """Errors for people: their text in red and exit code 2 as everywhere on the command line, no traceback."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, SSLSegError):
            self._console.print(str(problem), style="red", soft_wrap=True, highlight=False, markup=False)
            raise typer.Exit(2) from problem


def _location(entry: CatalogueEntry, folder: Path | None, *, complete: bool = True) -> Path | None:
    try:
        return find_weights(entry.name, folder)
    except WeightsError:
        if complete:
            return None
        places = [root / entry.relative_path for root in weights_folders(folder)]
        return next((place for place in places if place.exists()), None)


def _here(found: InstalledWeights | None, *, complete: bool) -> str:
    if found is None:
        return "no"
    if not complete:
        return f"[yellow]incomplete[/], {_size(found.size)}"
    return {"bundled": "[green]yes[/], bundled", "downloaded": "[green]yes[/]", "own": "[green]yes[/], your own copy"}[
        found.origin
    ]


def _folders(folder: Path | None) -> str:
    return ", ".join(str(each) for each in weights_folders(folder))


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

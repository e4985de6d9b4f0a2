"""Weights of the catalogue brought onto this machine, after the user has agreed to their licence. Imports no torch."""

from pathlib import Path

from ..errors import WeightsError
from ..progress import Progress, silent
from .catalogue import BundledSource, CatalogueEntry, WeightsFile, entry_named
from .store import default_weights_folder, find_weights, pin, verify_weights
from .transfer import fetch_file

__all__ = ["download_weights", "licence_text"]


def licence_text(entry: CatalogueEntry) -> str:
    """What the user agrees to, and whom to cite."""
    lines = [f"Licence: {entry.licence} ({entry.licence_url})", entry.licence_notice, f"Please cite: {entry.citation}"]
    return "\n".join(line for line in lines if line)


def download_weights(
    name: str,
    folder: Path | str | None = None,
    *,
    consent: bool = False,
    progress: Progress = silent,
) -> Path:
    """Download an entry of the catalogue, or find it already there, and return its path as ``find_weights`` does.

    A download that broke off continues. SHA-256 and address of each download are written to ``pins.json`` beside it.
    Where the catalogue knows no SHA-256, that of this first download is announced by a ``warning`` event; from then on
    it is what counts.

    Args:
        name: Name in the catalogue.
        folder: Where to, instead of the default weights folder.
        consent: The user has read and accepted the licence (``licence_text``).
        progress: Gets ``progress`` events (``stage="download"``, ``file``, ``done``, ``total`` bytes).

    Raises:
        WeightsError: Unknown name, no consent, a transfer that failed, or a different file under that name.
    """
    entry = entry_named(name)
    if isinstance(entry.source, BundledSource):
        return find_weights(entry.name)
    root = Path(folder).expanduser() if folder is not None else default_weights_folder()
    location = root / entry.relative_path
    wanted = [file for file, there in _present(entry, root) if not there]
    if wanted and not consent:
        raise WeightsError(
            f"{entry.name} was not downloaded: its licence has not been accepted. {licence_text(entry)}",
            remedy="Read the licence, then run the command with --yes (in Python: consent=True).",
        )
    for file in wanted:
        _fetch(entry, file, entry.path_of(file, location), progress)
    return location


def _present(entry: CatalogueEntry, root: Path) -> list[tuple[WeightsFile, bool]]:
    """Which files are there already; a file that is there but wrong is the user's to remove, not ours."""
    location = root / entry.relative_path
    present = []
    for file in entry.files:
        path = entry.path_of(file, location)
        present.append((file, path.is_file()))
    if any(there for _, there in present):
        wrong = [found for found in verify_weights(entry.name, root) if found.outcome == "wrong"]
        if wrong:
            raise WeightsError(
                f"{wrong[0].path} is there already, but it is another file than {entry.name} "
                f"(SHA-256 {wrong[0].sha256}, expected {wrong[0].expected}).",
                remedy="Move or delete it, then download again.",
            )
    return present


def _fetch(entry: CatalogueEntry, file: WeightsFile, path: Path, progress: Progress) -> None:
    assert not isinstance(entry.source, BundledSource)
    url = entry.source.url(file.name)
    digest = fetch_file(url, path, size=file.size, sha256=file.sha256, progress=progress)
    pin(path, digest, url)
    if file.sha256 is None:
        progress(
            "warning",
            message=(
                f"No SHA-256 is published for {file.name}. That of this download, {digest}, was written to "
                f"{path.parent / 'pins.json'} and will be checked from now on."
            ),
        )

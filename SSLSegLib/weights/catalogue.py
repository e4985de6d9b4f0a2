"""The catalogue of weights: ``Resources/Models.json`` read into typed entries. Data, not code; imports no torch."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import WeightsError
from ..files import read_json
from ..resources import resource
from .configuration import Sam2Configuration
from .sidecar import WeightsSidecar, read_sidecar

__all__ = [
    "BUNDLED",
    "BundledSource",
    "CatalogueEntry",
    "HuggingFaceSource",
    "WebSource",
    "WeightsFile",
    "entry_named",
    "load_catalogue",
]

BUNDLED = "sslseg-small"
"""Name of the checkpoint that ships with this library."""

_FROZEN = ConfigDict(frozen=True, extra="forbid")
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]  # no folders, nothing hidden


class WeightsFile(BaseModel):
    """One file of an entry. ``size`` is in bytes; ``None`` means that no published value could be verified."""

    model_config = _FROZEN

    name: _FileName
    size: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class HuggingFaceSource(BaseModel):
    """A repository on the Hugging Face hub at a fixed revision. ``HF_ENDPOINT`` names a mirror, as for the hub."""

    model_config = _FROZEN

    kind: Literal["huggingface"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"

    def url(self, file: str) -> str:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{endpoint}/{self.repository}/resolve/{self.revision}/{file}"

    def __str__(self) -> str:
        return f"huggingface.co/{self.repository}"


class WebSource(BaseModel):
    """A folder on a web server."""

    model_config = _FROZEN

    kind: Literal["web"]
    folder: str

    @field_validator("folder")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        # Where no SHA-256 is known, the connection is what vouches for the file. Loopback is for tests.
        if not value.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
            raise ValueError(f"{value} is not an https address")
        return value.rstrip("/")

    def url(self, file: str) -> str:
        return f"{self.folder}/{file}"

    def __str__(self) -> str:
        return self.folder


class BundledSource(BaseModel):
    """A folder in ``Resources/``; size, SHA-256 and configuration lie beside the file (``sidecar.py``)."""

    model_config = _FROZEN

    kind: Literal["bundled"]
    folder: str

    def __str__(self) -> str:
        return "ships with SSLSeg"


class CatalogueEntry(BaseModel):
    """One set of weights: what it is for, where it comes from, under which licence, and how to check it.

    ``kind`` says which loader takes it; ``configuration`` is set for SAM2 weights. An entry of one file lies in a
    weights folder under the file's name, an entry of several in a folder of the entry's name.
    """

    model_config = _FROZEN

    name: _FileName
    kind: Literal["sam2", "dinov2", "qwen3-vl"]
    purpose: str
    source: HuggingFaceSource | WebSource | BundledSource = Field(discriminator="kind")
    files: tuple[WeightsFile, ...] = Field(min_length=1)
    licence: str
    licence_url: str
    licence_notice: str | None = None
    citation: str
    configuration: Sam2Configuration | None = None

    @property
    def size(self) -> int | None:
        """Bytes of all files together, ``None`` if one is unknown."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def relative_path(self) -> str:
        """Name of the file, or of the folder of files, inside a weights folder."""
        return self.files[0].name if len(self.files) == 1 else self.name

    def path_of(self, file: WeightsFile, location: Path) -> Path:
        """Path of one file, given where the entry lies (as ``find_weights`` returns it)."""
        return location if len(self.files) == 1 else location / file.name


class _Catalogue(BaseModel):
    model_config = _FROZEN

    schema_version: Literal[1]
    models: tuple[CatalogueEntry, ...]


def load_catalogue(path: Path | None = None) -> dict[str, CatalogueEntry]:
    """Read the catalogue, by default ``Resources/Models.json``, in the file's order.

    Bundled entries take size, SHA-256 and configuration from the JSON file beside the checkpoint, if it is there.

    Raises:
        WeightsError: The file is missing or does not follow the schema.
    """
    path = resource("Models.json") if path is None else Path(path)
    try:
        catalogue = _Catalogue.model_validate(read_json(path))
    except FileNotFoundError as problem:
        raise WeightsError(
            f"The catalogue of weights is missing: {path}.", remedy="Install SSLSeg again; the file ships with it."
        ) from problem
    except (ValidationError, ValueError, OSError) as problem:
        raise WeightsError(f"The catalogue of weights {path} cannot be read: {problem}") from problem
    entries = {entry.name: _completed(entry) for entry in catalogue.models}
    if len(entries) != len(catalogue.models):
        raise WeightsError(f"The catalogue of weights {path} holds two entries of the same name.")
    return entries


def entry_named(name: str, catalogue: dict[str, CatalogueEntry] | None = None) -> CatalogueEntry:
    """The entry of that name; case does not matter.

    Raises:
        WeightsError: There is none; the nearest names are given.
    """
    catalogue = load_catalogue() if catalogue is None else catalogue
    by_folded_name = {known.casefold(): entry for known, entry in catalogue.items()}
    entry = by_folded_name.get(name.casefold())
    if entry is None:
        near = difflib.get_close_matches(name.casefold(), by_folded_name, n=3, cutoff=0.5)
        names = ", ".join(by_folded_name[key].name for key in near) or ", ".join(catalogue)
        raise WeightsError(
            f"There are no weights named {name!r} in the catalogue, and no such file.",
            remedy=f"Use one of: {names}. `weights list` shows all.",
        )
    return entry


def _completed(entry: CatalogueEntry) -> CatalogueEntry:
    if not isinstance(entry.source, BundledSource):
        return entry
    file = entry.files[0]
    sidecar: WeightsSidecar | None = read_sidecar(resource(entry.source.folder) / file.name)
    if sidecar is None:
        return entry
    return entry.model_copy(
        update={
            "files": (file.model_copy(update={"size": sidecar.size, "sha256": sidecar.sha256}),),
            "configuration": sidecar.configuration,
        }
    )

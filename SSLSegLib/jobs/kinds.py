"""The registry of job kinds: what a manifest's ``kind`` may be. A manifest names a kind; it never carries code."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from SSLSegLib.errors import JobError
from SSLSegLib.progress import Progress

if TYPE_CHECKING:
    from SSLSegLib.jobs.folder import Job

__all__ = ["JobKind", "job_kind", "known_kinds", "register_kind"]


@dataclass(frozen=True)
class JobKind:
    """What a manifest of this kind holds and how it is run.

    Args:
        name: The word that stands in the manifest.
        parameters: Model of the manifest's parameters; unknown fields are refused.
        preflight: Raises an ``SSLSegError`` when the run cannot succeed; writes nothing.
        run: Does the work into the job folder, skipping results that are there and valid.
        on_clusters: Whether its work can be done elsewhere (``Job.scheduler``, see :mod:`SSLSegLib.jobs.schedulers`).
    """

    name: str
    parameters: type[BaseModel]
    preflight: Callable[["Job", Progress], None]
    run: Callable[["Job", Progress], None]
    on_clusters: bool = False


# Name -> module with a ``KIND``, imported on first use, so that reading one kind of job does not load the others.
_MODULES = {
    "tffs": "SSLSegLib.jobs.tffs",
    "expect": "SSLSegLib.jobs.expect",
    "selftraining": "SSLSegLib.jobs.selftraining",
    "ssl-medsam2": "SSLSegLib.jobs.ssl_medsam2",
    "unimatch": "SSLSegLib.jobs.unimatch",
    "vessa": "SSLSegLib.jobs.vessa",
    "vessa-unimatch": "SSLSegLib.jobs.vessa_guided",
}
_KINDS: dict[str, JobKind] = {}


def register_kind(kind: JobKind) -> None:
    """Make a kind known under its name."""
    _KINDS[kind.name] = kind


def known_kinds() -> list[str]:
    """All names a manifest may use."""
    return sorted({*_MODULES, *_KINDS})


def job_kind(name: str) -> JobKind:
    """The kind of this name.

    Raises:
        JobError: When no such kind is known.
    """
    if name not in _KINDS and name in _MODULES:
        register_kind(importlib.import_module(_MODULES[name]).KIND)
    if name not in _KINDS:
        raise JobError(
            f"A job of kind {name!r} is not known here (known: {', '.join(known_kinds())}).",
            remedy="Update SSLSeg, or check the manifest.",
        )
    return _KINDS[name]

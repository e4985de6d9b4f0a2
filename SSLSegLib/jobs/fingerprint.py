"""A short name for everything a result depends on, so that one run is never taken for another."""

import hashlib
import json
from pathlib import Path

from SSLSegLib.jobs.manifest import Manifest

__all__ = ["fingerprint", "library_digest"]


def fingerprint(manifest: Manifest) -> str:
    """Eight hex digits of a manifest's work, the versions of the software and this library's own source.

    Other weights (by content), scans, labels, settings or seeds, another version of a package or a changed line of this
    library give another one; the date does not.
    """
    work = {
        "kind": manifest.kind,
        "seed": manifest.seed,
        "parameters": manifest.checked_parameters().model_dump(mode="json"),
        "inputs": {role: file.sha256 for role, file in manifest.inputs.items()},
        "versions": manifest.versions,
        "library": library_digest(),
    }
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:8]


def library_digest() -> str:
    """SHA-256 over the names and contents of this library's source files."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

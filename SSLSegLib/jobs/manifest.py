"""The manifest: everything a run depends on, written down before it starts, so that it can be repeated or resumed."""

import errno
import hashlib
import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from SSLSegLib import __version__
from SSLSegLib.errors import JobError
from SSLSegLib.files import sha256_of
from SSLSegLib.jobs.documents import SCHEMA_VERSION, first_problem, read_document, write_document
from SSLSegLib.jobs.kinds import job_kind

__all__ = ["InputFile", "Manifest", "read_manifest", "software_versions", "utc_now", "write_manifest"]

_VERSIONS_OF = ("torch", "sam2", "numpy", "scipy", "SimpleITK", "connected-components-3d", "nnunetv2", "slicer-core")


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def software_versions() -> dict[str, str]:
    """Versions of what the result depends on; packages that are not installed are left out."""
    versions = {"sslseg": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


class InputFile(BaseModel):
    """A file the run reads (or a folder of files, such as a DICOM series), with what makes it recognisable.

    Args:
        path: Absolute path.
        size: Bytes, of a folder those of all files in it.
        sha256: Of the bytes, of a folder that of its sorted file names and their checksums.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, path: Path) -> "InputFile":
        """Describe a file or folder as it is now.

        Raises:
            OSError: It cannot be read.
        """
        path = Path(os.path.abspath(path))
        if not path.is_dir():
            if not path.is_file():  # a pipe or a device never ends
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            return cls(path=str(path), size=path.stat().st_size, sha256=sha256_of(path))
        files = sorted(file for file in path.iterdir() if file.is_file())
        listing = "".join(f"{sha256_of(file)} {file.name}\n" for file in files)
        digest = hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()
        return cls(path=str(path), size=sum(file.stat().st_size for file in files), sha256=digest)

    def difference(self) -> str:
        """What has changed since the manifest was written, or an empty string."""
        path = Path(self.path)
        if not os.path.exists(path):
            return f"{path} is no longer there"
        try:
            same = self == InputFile.of(path)
        except OSError as error:
            return f"{path} can no longer be read ({error.strerror})"
        return "" if same else f"{path} has other content than when the job was made"


class Manifest(BaseModel):
    """What to do, with which files, parameters, seed and software.

    Args:
        kind: The name of a registered job kind (see :mod:`SSLSegLib.jobs.kinds`); never code.
        parameters: The kind's own parameters, validated by its model.
        inputs: Role -> file, for example ``"cohort"``, ``"weights"``, ``"case_01/image_0"``.
        seed: The one number from which all named random draws follow.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: str
    created: str = Field(default_factory=utc_now)
    seed: int = Field(default=42, ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, InputFile] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=software_versions)

    def checked_parameters(self) -> BaseModel:
        """The parameters as the kind's own model.

        Raises:
            JobError: When the kind is unknown or a parameter is not what its kind asks for.
        """
        try:
            return job_kind(self.kind).parameters.model_validate(self.parameters)
        except ValidationError as error:
            raise JobError(f"A parameter of the {self.kind} job is wrong: {first_problem(error)}.") from error

    def same_work(self, other: "Manifest") -> bool:
        """Whether both manifests ask for the same result (dates, paths and software aside)."""
        return self._work() == other._work()

    def _work(self) -> tuple[Any, ...]:
        hashes = {role: file.sha256 for role, file in self.inputs.items()}
        return self.kind, self.seed, self.checked_parameters(), hashes

    def changed_inputs(self, roles: tuple[str, ...] = ("",)) -> list[str]:
        """For each input file that is gone or has other content now: what has changed.

        Args:
            roles: How the roles begin of those that are looked at; all, where it is left out.
        """
        wanted = [file for name, file in self.inputs.items() if name.startswith(roles)]
        return [difference for file in wanted if (difference := file.difference())]


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest.

    Raises:
        JobError: When the file is missing, damaged, made by a newer version, or of an unknown kind.
    """
    manifest = read_document(path, Manifest, what="manifest")
    manifest.checked_parameters()
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically."""
    write_document(path, manifest)

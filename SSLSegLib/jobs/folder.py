"""A job folder: what to do, how far it is, what came out.

manifest.json   what to do; never changes                 results/<case id>/   whole results, sealed by checksums
state.json      how it stands                             report/              tables and pictures
events.jsonl    what happened, one JSON object a line     logs/                text for people
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from SSLSegLib.errors import JobError
from SSLSegLib.files import read_json, sha256_of, write_json
from SSLSegLib.jobs.documents import SCHEMA_VERSION, DamagedDocumentError, read_document, write_document
from SSLSegLib.jobs.failed_start import free_place, replace_failed_start
from SSLSegLib.jobs.links import refuse_links
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import Manifest, read_manifest, write_manifest
from SSLSegLib.processes import as_argument

__all__ = ["Job", "JobState", "Status", "short_name"]

Status = Literal["pending", "running", "finished", "failed", "cancelled"]
CHECKSUMS = "checksums.json"
_LONGEST_FOLDER_ON_WINDOWS = 150  # characters; leaves room below 260 for the longest file inside
_RESERVED_ON_WINDOWS = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")


class JobState(BaseModel):
    """How a job stands.

    Args:
        status: Where it is.
        message, remedy: Why it failed and what to do.
        started, ended: Of the latest run, UTC.
        checked: Its inputs have passed the pre-flight: while they are unchanged they need no second look.
        cases_done, cases_total: Finished cases, of how many.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    status: Status = "pending"
    message: str = ""
    remedy: str = ""
    started: str | None = None
    ended: str | None = None
    checked: bool = False
    cases_done: int = 0
    cases_total: int = 0


def short_name(identifier: str) -> str:
    """A folder name for a case: its id where that is short, plain ASCII and legal everywhere, else a safe stand-in.

    Example:
        >>> short_name("la_004")
        'la_004'
    """
    plain = re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", identifier) is not None
    if plain and not identifier.endswith(".") and not _RESERVED_ON_WINDOWS.match(identifier):
        return identifier
    readable = re.sub(r"[^A-Za-z0-9_-]+", "", identifier)[:20]
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:10]}".lstrip("-")


class Job:
    """A job folder on disk. Make one with :meth:`create`, come back to it with :meth:`open`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        # Where and how the work is done, which is no part of what comes out (see jobs.schedulers, jobs.retry).
        self.scheduler = "local"
        self.cpu_if_needed = False
        self.put_aside: Path | None = None  # what a failed start of other work had written, see jobs.failed_start

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> "Job":
        """Make a job folder, or come back to the one there if it holds the same work.

        Other work that failed before its first result gives way; its files are moved to ``logs/replaced``.

        Raises:
            JobError: When the folder holds other work or other files, cannot be written, or its path is too long.
        """
        folder = Path(folder).expanduser().resolve()
        elsewhere = "Choose another folder with --out."
        if (folder / "manifest.json").exists():
            job = cls.open(folder)
            if job.manifest.same_work(manifest):
                return job
            try:
                replaced = replace_failed_start(job, manifest)
            except OSError as error:
                raise JobError(f"{folder} cannot be written: {error.strerror}.", remedy=elsewhere) from error
            if replaced is None:
                raise JobError(
                    f"{folder} holds a job with other inputs or parameters.", remedy=elsewhere + " Nothing was changed."
                )
            return replaced
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise JobError(f"{folder} is not empty and not a job folder.", remedy=elsewhere + " Nothing was changed.")
        if sys.platform == "win32" and len(str(folder)) > _LONGEST_FOLDER_ON_WINDOWS:
            raise JobError(f"The path {folder} is too long for Windows.", remedy="Choose a shorter folder.")
        manifest.checked_parameters()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_manifest(folder / "manifest.json", manifest)  # first, in one step: it makes the folder a job
        except OSError as error:
            raise JobError(f"{folder} cannot be written: {error.strerror}.", remedy=elsewhere) from error
        job = cls(folder, manifest)
        job.write_state(JobState())
        return job

    @classmethod
    def open(cls, path: Path) -> "Job":
        """Open a job by its folder or by the manifest in it.

        Raises:
            JobError: When there is no job, or its manifest is damaged or newer.
        """
        path = Path(path).expanduser().resolve()
        folder = path.parent if path.name == "manifest.json" else path
        return cls(folder, read_manifest(folder / "manifest.json"))

    @property
    def events_path(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.folder / "report"

    @property
    def logs(self) -> Path:
        """Folder of the text logs."""
        return self.folder / "logs"

    @property
    def lock_path(self) -> Path:
        return self.folder / "lock.json"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for files that only the running process needs; emptied before and removed after."""
        folder = self.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # State

    def state(self) -> JobState:
        """The state on disk; pending where none was written yet.

        Raises:
            DamagedDocumentError: When the state is damaged.
            JobError: When it is newer.
        """
        path = self.folder / "state.json"
        remedy = f"Go on from the results that are whole: python -m SSLSegLib jobs resume {as_argument(self.folder)}"
        return read_document(path, JobState, what="job state", if_damaged=remedy) if path.exists() else JobState()

    def mend_state(self) -> Path | None:
        """Put a damaged state aside: which cases are finished is told by the results themselves.

        Returns:
            Where the damaged file is kept; None where the state is whole.

        Raises:
            JobError: The state is newer, or somebody is running the job.
        """
        if not self._has_damaged_state():
            return None
        refuse_links(self.folder)
        try:
            with JobLock(self.lock_path, runs=False):
                if not self._has_damaged_state():  # somebody was quicker
                    return None
                aside = free_place(self.logs / "replaced" / "state.json")
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.folder / "state.json", aside)
                self.write_state(JobState())
        except OSError as error:
            raise JobError(
                f"The job folder {self.folder} cannot be written: {error.strerror}.",
                remedy="Give yourself the right to write there, or copy the job folder to a place of your own.",
            ) from error
        return aside

    def _has_damaged_state(self) -> bool:
        try:
            self.state()
        except DamagedDocumentError:
            return True
        return False

    def write_state(self, state: JobState) -> None:
        """Replace the state in one step."""
        write_document(self.folder / "state.json", state)

    # Results

    def result_folder(self, case_id: str) -> Path:
        """Where the result of a case lies (or will lie)."""
        return self.folder / "results" / short_name(case_id)

    @contextmanager
    def new_result(self, case_id: str) -> Iterator[Path]:
        """Yield an empty folder to write a result into; on success it is sealed and becomes the case's result at once.

        What lay there before (a damaged result, or one that somebody edited) is moved to ``logs/replaced``, never
        deleted.
        """
        target = self.result_folder(case_id)
        part = target.with_name(f".part-{target.name}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            _seal(part)
            if target.exists():
                aside = free_place(self.logs / "replaced" / target.name)
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(target, aside)
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def has_result(self, case_id: str) -> bool:
        """Whether the case's result is there, whole and unchanged (by checksum)."""
        return _is_whole(self.result_folder(case_id))

    def finished(self, case_ids: list[str]) -> list[str]:
        """Those of the given cases whose results are there and valid, in the given order."""
        return [case_id for case_id in case_ids if self.has_result(case_id)]


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with open(path, "rb+") as written:
            os.fsync(written.fileno())
    checksums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_json(folder / CHECKSUMS, {"schema_version": SCHEMA_VERSION, "sha256": checksums})


def _is_own_file(folder: Path, name: str) -> bool:
    """Whether a name in a list of checksums is that of a real file inside the folder, and of nothing elsewhere."""
    return os.path.isfile(folder / name) and (folder / name).resolve().is_relative_to(folder.resolve())


def _is_whole(folder: Path) -> bool:
    try:
        content = read_json(folder / CHECKSUMS)
        checksums = content["sha256"]
        return (
            content["schema_version"] == SCHEMA_VERSION
            and len(checksums) > 0
            and all(_is_own_file(folder, name) and sha256_of(folder / name) == checksums[name] for name in checksums)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False

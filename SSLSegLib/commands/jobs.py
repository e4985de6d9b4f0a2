"""``jobs list | show | resume | cancel | clean``: job folders looked after from a terminal."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from SSLSegLib.commands.shared import CpuIfNeededOption, SchedulerOption, console, say
from SSLSegLib.errors import JobError, SSLSegError

if TYPE_CHECKING:
    from SSLSegLib.jobs.folder import Job

__all__ = ["app", "find_jobs", "leftovers"]

app = typer.Typer(help="Look after job folders.", no_args_is_help=True)

JobArgument = Annotated[Path, typer.Argument(help="A job folder, or the manifest in it.")]
_DEPTH = 3  # folders below the named one that are searched for jobs


def find_jobs(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Job folders in a folder and the folders below it, in order of name; links are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == "manifest.json" for entry in entries):
        yield Path(folder)
        return  # there are no jobs in jobs
    if depth > 0:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from find_jobs(Path(entry.path), depth - 1)


def leftovers(job: "Job", *, replaced: bool = False) -> list[Path]:
    """What a killed run left behind and nothing needs: scratch files, half results, temporary files.

    Args:
        job: The job.
        replaced: Also the damaged or edited results that were put aside in ``logs/replaced``.
    """
    found = [job.folder / "scratch", *sorted(job.folder.glob(".tmp-*"))]
    for inner in ("results", "report", "logs"):
        if (job.folder / inner).is_dir() and not (job.folder / inner).is_symlink():
            found += sorted((job.folder / inner).glob(".part-*")) + sorted((job.folder / inner).glob(".tmp-*"))
    if replaced:
        found.append(job.logs / "replaced")
    return [path for path in found if os.path.lexists(path)]


def _describe(folder: Path) -> dict[str, Any]:
    """One job in a few words; what is damaged is said and not raised."""
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.lock import lock_owner

    try:
        job = Job.open(folder)
        state = job.state()
    except SSLSegError as error:
        return {
            "folder": str(folder),
            "kind": "?",
            "status": "damaged",
            "message": error.problem,
            "remedy": error.remedy or "",
        }
    owner = lock_owner(job.lock_path)
    status: str = state.status
    if status == "running" and (owner is None or _is_gone(owner, job.lock_path)):
        status = "interrupted"  # the process died without a word; the job can be resumed
    cases = f"{state.cases_done}/{state.cases_total}" if state.cases_total else ""
    return {
        "folder": str(folder),
        "kind": job.manifest.kind,
        "status": status,
        "cases": cases,
        "created": job.manifest.created,
        "ended": state.ended or "",
        "message": state.message,
        "remedy": state.remedy,
        "owner": f"process {owner.get('pid')} on {owner.get('host')}" if owner else "",
    }


def _is_gone(owner: dict[str, Any], lock: Path) -> bool:
    """Whether nobody works on it any more; nothing is written to find out, so by this computer's clock."""
    import time

    from SSLSegLib.jobs.lock import SILENCE, is_here, owner_process

    if is_here(owner):
        return owner_process(owner) is None
    try:
        return time.time() - lock.stat().st_mtime > SILENCE
    except OSError:
        return True


@app.command("list")
def list_jobs(
    folder: Annotated[Path, typer.Argument(help="Where to look, three folders deep.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the jobs in a folder: kind, how they stand, how many cases are finished."""
    from rich.table import Table

    if not folder.is_dir():
        raise JobError(f"There is no folder {folder}.", remedy="Name one that holds jobs.")
    found = [_describe(path) for path in find_jobs(folder)]
    if as_json:
        for each in found:
            print(json.dumps(each))
        return
    if not found:
        console.print(f"There are no jobs in {folder.resolve()}.", highlight=False, markup=False)
        return
    table = Table("folder", "kind", "status", "cases", "ended or problem")
    for each in found:
        row = [each.get(key, "") for key in ("folder", "kind", "status", "cases")]
        table.add_row(*map(_plain, row), _plain(each.get("message") or each.get("ended", "")))
    console.print(table)


@app.command()
def show(job: JobArgument, events: Annotated[int, typer.Option(min=0, help="How many of the latest.")] = 10) -> None:
    """Show one job: what it is to do, how it stands, its latest events, and what it left lying about."""
    from SSLSegLib.jobs.events import read_events
    from SSLSegLib.jobs.folder import Job

    opened = Job.open(job)
    for key, value in _describe(opened.folder).items():
        if value:
            say(f"{key:8} {value}")
    console.print(f"{'inputs':8} {len(opened.manifest.inputs)} files, seed {opened.manifest.seed}", highlight=False)
    for each in read_events(opened.events_path)[-events:] if events else []:
        rest = {key: value for key, value in each.items() if key not in ("schema_version", "time", "event")}
        line = f"  {each.get('time', '')} {each['event']} {json.dumps(rest) if rest else ''}"
        say(line)
    if left := leftovers(opened, replaced=True):
        console.print(f"{len(left)} leftovers; see `jobs clean`.", highlight=False)


@app.command()
def resume(job: JobArgument, cpu_if_needed: CpuIfNeededOption = False, scheduler: SchedulerOption = "local") -> None:
    """Run a job again from where it stands; finished cases are kept. A damaged state.json is put aside."""
    from SSLSegLib.commands.running import print_outputs, run_in_terminal
    from SSLSegLib.jobs.folder import Job

    opened = Job.open(job)
    damaged = opened.mend_state()
    if damaged is not None:
        said = f"The job's state was damaged and is kept as {damaged}; going on from the results that are whole."
        say(said, style="yellow")
    opened.scheduler, opened.cpu_if_needed = scheduler, cpu_if_needed
    run_in_terminal(opened)
    print_outputs(opened)


@app.command()
def cancel(job: JobArgument) -> None:
    """Cancel a running job and end everything it started; it can be resumed."""
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.lock import lock_owner
    from SSLSegLib.jobs.process import cancel_job

    opened = Job.open(job)
    before, owner = opened.state().status, lock_owner(opened.lock_path)
    ended = before in ("finished", "failed", "cancelled")
    if ended and (owner is None or _is_gone(owner, opened.lock_path)):
        console.print(f"The job is not running: it is {before}.", highlight=False)
        return
    status = cancel_job(job).status
    if ended:  # its labels were being refined, which holds the lock and leaves the state alone
        say(f"The training in the job was ended; the job itself is {status}. The same `self-train` goes on.")
    else:
        console.print(f"The job is {status}.", highlight=False)


@app.command()
def clean(
    job: JobArgument,
    replaced: Annotated[bool, typer.Option("--replaced", help="Also results that were put aside.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what killed runs left behind; never a result, a log or anything else that is not the job's own."""
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.lock import JobLock

    opened = Job.open(job)
    try:
        with JobLock(opened.lock_path, runs=False):  # nobody is running it meanwhile
            found = leftovers(opened, replaced=replaced)
            freed = sum(_bytes_of(path) for path in found)
            for path in found if not dry_run else []:
                _remove(path)
    except OSError as error:
        raise JobError(f"{opened.folder} cannot be cleaned: {error.strerror}.") from error
    verb = "would be removed" if dry_run else "removed"
    console.print(f"{len(found)} leftovers {verb}, {freed / 1e6:.1f} MB.", highlight=False)


def _bytes_of(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(inner.lstat().st_size for inner in path.rglob("*") if not inner.is_dir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _plain(text: str) -> str:
    """For a table cell: square brackets are no markup there."""
    from rich.markup import escape

    return escape(text)

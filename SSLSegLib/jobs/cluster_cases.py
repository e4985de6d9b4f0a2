"""Pseudo-labels as tasks of a Dask cluster, one for each unlabelled case.

Random draws depend on names alone, so the result is that of a local run. Workers read inputs where the manifest says (a
shared disk) or, with ``?data=send``, get them with the task. Only this process writes into the job folder. Results come
back as files in memory, a few at a time.
"""

import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.schedulers import (
    Company,
    Scheduler,
    connected,
    died_again_and_again,
    parse_scheduler,
    patience_of,
    resources_of,
)
from SSLSegLib.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["forget", "segment_case", "segment_on_cluster"]

_IN_FLIGHT = 2  # tasks per worker that wait or run: enough to keep it busy, few enough to keep memory flat


def segment_on_cluster(
    job: Job, case_ids: list[str], told: Callable[[str], None], progress: Progress, *, client: "Client | None" = None
) -> None:
    """Pseudo-label cases on a cluster and write their results into the job folder.

    Args:
        job: Its ``scheduler`` says where.
        case_ids: Cases to do.
        told: Called with each case whose result is written.
        progress: Hears of the cluster, results and lost workers.
        client: One that is connected already.

    Raises:
        SSLSegError: As a worker raised it, or because workers died over one case again and again.
    """
    scheduler = parse_scheduler(job.scheduler)
    if client is None:
        progress("stage", stage="Connecting to the cluster", total=None)
        with connected(scheduler, len(case_ids), job.logs) as client:
            _segment_with(client, scheduler, job, case_ids, told, progress)
    else:
        _segment_with(client, scheduler, job, case_ids, told, progress)


def _segment_with(
    client: "Client",
    scheduler: Scheduler,
    job: Job,
    case_ids: list[str],
    told: Callable[[str], None],
    progress: Progress,
) -> None:
    company, resources = Company(client, progress, patience_of(scheduler)), resources_of(client)
    workers = f"{company.size} Dask workers"
    progress("device", device=workers, outcome=f"Computed on {workers}.")
    progress("stage", stage="Segmenting", total=len(case_ids))
    text = job.manifest.model_dump_json()
    token = f"sslseg-{uuid.uuid4().hex}"  # distinguishes this run's tasks on a shared scheduler
    common = _files_of(job.manifest, labelled=True) if scheduler.send else {}
    shared = client.scatter([common], broadcast=True, hash=False)[0] if common else {}

    def submit(case_id: str) -> Any:
        own = _files_of(job.manifest, case_id=case_id) if scheduler.send else {}
        return client.submit(
            segment_case,
            text,
            case_id,
            shared,
            own,
            key=f"{token}-{case_id}",
            pure=False,
            retries=0,  # an error of ours would come again; tasks of lost workers are run again all the same
            resources=resources,
        )

    waiting = list(reversed(case_ids))
    running: dict[str, Any] = {}
    try:
        while waiting or running:
            room = max(_IN_FLIGHT * company.size, 1)
            while waiting and len(running) < room:
                case_id = waiting.pop()
                running[case_id] = submit(case_id)
            for case_id in _finished(client, running, company):
                future = running.pop(case_id)
                seconds, machine = _store(job, case_id, future)
                future.release()
                told(case_id)
                progress("result", case=case_id, seconds=seconds, machine=machine)
            done = len(case_ids) - len(waiting) - len(running)
            progress("progress", stage="Segmenting", done=done, total=len(case_ids))
    finally:
        if running:
            client.cancel(list(running.values()), force=True)


def _finished(client: "Client", running: dict[str, Any], company: Company) -> list[str]:
    """Wait until at least one case is finished."""
    from distributed import wait

    while True:
        try:
            with client.as_current():
                done = wait(list(running.values()), timeout=2, return_when="FIRST_COMPLETED").done
            return [case_id for case_id, future in running.items() if future in done]
        except TimeoutError:
            company.wait()


def _store(job: Job, case_id: str, future: Any) -> tuple[float, str]:
    from distributed.scheduler import KilledWorker

    try:
        files, seconds, machine = future.result()
    except KilledWorker as error:
        raise died_again_and_again(f"case {case_id}") from error
    with job.new_result(case_id) as folder:
        for name, content in files.items():
            if Path(name).name != name:
                raise JobError(f"A worker sent a file named {name!r}.")
            (folder / name).write_bytes(content)
    return seconds, machine


# --- on a worker ---------------------------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()  # the engine is not made for several threads
_ready: dict[str, Any] = {}  # the last manifest's text -> its segmenter and scratch folder


def segment_case(
    manifest_text: str, case_id: str, shared: dict[str, bytes], own: dict[str, bytes]
) -> tuple[dict[str, bytes], float, str]:
    """On a worker: the files of one case's pseudo-label, the seconds it took, and the machine's name.

    The model and the encoded labelled cases stay on the worker for the next case of the same job.

    Args:
        manifest_text: The job's manifest as JSON.
        case_id: Which case.
        shared, own: Contents of input files by role, for all cases and for this one, where they are sent.
    """
    from SSLSegLib.jobs.segmenting import Segmenter
    from SSLSegLib.pseudolabels.storage import save_pseudo_label

    began = time.monotonic()
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="sslseg-") as temporary:
        folder = Path(temporary)
        if manifest_text not in _ready:
            forget()
            manifest = Manifest.model_validate_json(manifest_text)
            if not shared:
                _refuse_changes(manifest)
            scratch = tempfile.TemporaryDirectory(prefix="sslseg-")
            manifest = _placed(manifest, Path(scratch.name) / "shared", shared)
            _ready[manifest_text] = Segmenter(manifest, silent), scratch
        segmenter, scratch = _ready[manifest_text]
        if own:
            segmenter.cohort = _placed(segmenter.manifest, folder / "own", own).checked_parameters().loaded_cohort()

        def keep(label: Any) -> None:
            provenance = {**label.provenance, "date": segmenter.manifest.created}
            save_pseudo_label(folder / "result", replace(label, provenance=provenance), segmenter.cohort.classes)

        segmenter.segment(lambda: [case_id], keep, silent, scratch=Path(scratch.name), keep_labelled=True)
        files = {path.name: path.read_bytes() for path in sorted((folder / "result").iterdir())}
    return files, round(time.monotonic() - began, 2), platform.node()


def forget() -> None:
    """Drop what this process keeps for the next case."""
    for _, scratch in _ready.values():
        scratch.cleanup()
    _ready.clear()


def _refuse_changes(manifest: Manifest) -> None:
    """A worker may see other files under the same paths; the weights compare their own checksum."""
    for role, file in manifest.inputs.items():
        if role != "weights" and (difference := file.difference()):
            raise JobError(
                f"On the worker, {difference}.",
                remedy="Give workers the same paths (a shared disk), or send inputs with ?data=send.",
            )


def _files_of(manifest: Manifest, *, case_id: str | None = None, labelled: bool = False) -> dict[str, bytes]:
    """Contents of the input files of the labelled cases (and of the weights), or of one unlabelled case, by role."""
    cohort = manifest.checked_parameters().loaded_cohort()
    wanted = {case.id for case in cohort.labelled} if labelled else {case_id}
    roles = [role for role in manifest.inputs if role.rpartition("/")[0] in wanted]
    if labelled and Path(manifest.parameters["weights"]).is_file():
        roles.append("weights")
    contents = {}
    for role in roles:
        path = Path(manifest.inputs[role].path)
        if path.is_dir():
            raise JobError(f"{path} is a folder, and folders are not sent.", remedy="Use a shared disk.")
        contents[role] = path.read_bytes()
        sidecar = path.with_suffix(".json")
        if role == "weights" and sidecar.is_file():
            contents["weights.json"] = sidecar.read_bytes()
    return contents


def _placed(manifest: Manifest, folder: Path, contents: dict[str, bytes]) -> Manifest:
    """The manifest with the files that came along written to a folder, and their paths changed to it."""
    if not contents:
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    moved: dict[str, str] = {}
    for number, (role, content) in enumerate(contents.items()):
        if role == "weights.json":
            continue
        original = Path(manifest.inputs[role].path)
        ending = next((end for end in (".seg.nrrd", ".nii.gz") if original.name.endswith(end)), original.suffix)
        stem = original.stem if role == "weights" else str(number)
        path = folder / (stem + ending)
        path.write_bytes(content)
        moved[str(original)] = str(path)
        if role == "weights" and "weights.json" in contents:
            path.with_suffix(".json").write_bytes(contents["weights.json"])
    parameters = _with_paths(manifest.parameters, moved)
    return manifest.model_copy(update={"parameters": parameters})


def _with_paths(value: Any, moved: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_paths(inner, moved) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_paths(inner, moved) for inner in value]
    return moved.get(value, value) if isinstance(value, str) else value

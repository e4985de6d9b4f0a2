"""Where a job's work is done: here, on a running Dask cluster, or on workers that a SLURM system starts for us.

    local                 this process (the default; needs no Dask)
    dask://HOST:PORT      a Dask scheduler that runs already
    slurm:CONFIG.json     workers started through SLURM as the file says

A task is the pseudo-label of one unlabelled case. Random draws depend on names alone, so the result is that of a local
run. Workers read inputs where the manifest says (a shared disk) or, with ``?data=send``, get them with the task. Only
this process writes into the job folder. Results come back as files in memory, a few at a time.
"""

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from SSLSegLib.errors import JobError, SSLSegError
from SSLSegLib.files import read_json
from SSLSegLib.jobs.documents import first_problem
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.progress import Progress, silent

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Scheduler", "SlurmConfiguration", "is_local", "parse_scheduler", "segment_on_cluster"]

CONNECT_TIMEOUT = 20  # seconds
WITHOUT_WORKERS = 600  # seconds to wait for new workers when all are gone
_IN_FLIGHT = 2  # tasks per worker that wait or run: enough to keep it busy, few enough to keep memory flat
_DEATHS = 3  # workers that may die with one task in hand before the case is given up


@dataclass(frozen=True)
class Scheduler:
    """A parsed ``--scheduler``.

    Args:
        kind: Which of the three.
        target: Address of a Dask scheduler, or path of a SLURM configuration.
        send: Send inputs with the task rather than have workers read them from a shared disk.
    """

    kind: Literal["local", "dask", "slurm"]
    target: str = ""
    send: bool = False


class SlurmConfiguration(BaseModel):
    """What ``slurm:CONFIG.json`` holds; see ``docs/cluster.md``.

    Args:
        workers: How many SLURM jobs, one worker each.
        cores, memory, walltime, queue, account: As SLURM has them.
        gpus: GPUs a worker asks for.
        interface: Network interface that nodes see each other on.
        prologue: Lines of shell before the worker starts (modules to load).
        start_timeout: Seconds to wait for the first worker.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int = Field(ge=1, le=1000)
    cores: int = Field(default=4, ge=1)
    memory: str = "16GB"
    walltime: str = "04:00:00"
    queue: str | None = None
    account: str | None = None
    gpus: int = Field(default=0, ge=0, le=1)
    interface: str | None = None
    prologue: tuple[str, ...] = ()
    start_timeout: float = Field(default=3600, gt=0)


def is_local(text: str) -> bool:
    """Whether a ``--scheduler`` names this process."""
    return parse_scheduler(text).kind == "local"


def parse_scheduler(text: str) -> Scheduler:
    """Understand ``local``, ``dask://HOST:PORT``, ``slurm:CONFIG.json``, the latter two with ``?data=send``.

    Raises:
        JobError: It is none of them.
    """
    target, _, query = text.partition("?")
    options = parse_qs(query)
    send = options.pop("data", ["shared"])
    if not options and send in (["shared"], ["send"]):
        sent = send == ["send"]
        if target == "local" and not query:
            return Scheduler("local")
        if target.startswith("dask://") and ":" in target[7:]:
            return Scheduler("dask", f"tcp://{target[7:]}", sent)
        if target.startswith(("tcp://", "tls://")):
            return Scheduler("dask", target, sent)
        if target.startswith("slurm:") and target[6:]:
            return Scheduler("slurm", target[6:], sent)
    raise JobError(
        f"{text!r} is no scheduler.", remedy="Use local, dask://HOST:PORT or slurm:CONFIG.json (see docs/cluster.md)."
    )


@contextmanager
def connected(scheduler: Scheduler, tasks: int) -> Iterator["Client"]:
    """A Dask client of the scheduler with at least one worker; workers that we started end with it.

    Raises:
        JobError: Dask is not installed, nobody answers, or no worker comes.
    """
    try:
        import distributed
    except ImportError as error:
        raise JobError(
            "Dask is not installed here.", remedy='Install it with: pip install "sslseg[cluster]", or use local.'
        ) from error
    if scheduler.kind == "slurm":
        configuration = _slurm_configuration(Path(scheduler.target))
        with (
            _slurm_cluster(configuration, tasks) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            _wait_for_workers(client, configuration.start_timeout)
            yield client
        return
    try:
        client = distributed.Client(scheduler.target, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise JobError(
            f"No Dask scheduler answers at {scheduler.target} ({type(error).__name__}).",
            remedy="Start one with `dask scheduler`, and check address and firewall.",
        ) from error
    with client:
        _wait_for_workers(client, 60)
        yield client


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
        with connected(scheduler, len(case_ids)) as client:
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
    workers = client.scheduler_info(n_workers=-1)["workers"]
    progress("device", device=f"{len(workers)} Dask workers", outcome=f"Computed on {len(workers)} Dask workers.")
    progress("stage", stage="Segmenting", total=len(case_ids))
    resources = {"GPU": 1} if any(worker.get("resources", {}).get("GPU") for worker in workers.values()) else None
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
            room = max(_IN_FLIGHT * _workers_of(client), 1)
            while waiting and len(running) < room:
                case_id = waiting.pop()
                running[case_id] = submit(case_id)
            for case_id in _finished(client, running, progress):
                future = running.pop(case_id)
                seconds = _store(job, case_id, future)
                future.release()
                told(case_id)
                progress("result", case=case_id, seconds=seconds)
            done = len(case_ids) - len(waiting) - len(running)
            progress("progress", stage="Segmenting", done=done, total=len(case_ids))
    finally:
        if running:
            client.cancel(list(running.values()), force=True)


def _workers_of(client: "Client") -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _finished(client: "Client", running: dict[str, Any], progress: Progress) -> list[str]:
    """Wait until at least one case is finished, but not for ever where all workers are gone."""
    from distributed import wait

    alone_since: float | None = None
    while True:
        try:
            with client.as_current():
                done = wait(list(running.values()), timeout=2, return_when="FIRST_COMPLETED").done
            return [case_id for case_id, future in running.items() if future in done]
        except TimeoutError:
            pass
        if _workers_of(client) > 0:
            alone_since = None
        elif alone_since is None:
            alone_since = time.monotonic()
            progress("warning", message="All Dask workers are gone; waiting for new ones.")
        elif time.monotonic() - alone_since > WITHOUT_WORKERS:
            raise JobError(
                f"No Dask worker has been there for {WITHOUT_WORKERS} s.",
                remedy="Start workers and run the job again; finished cases are kept.",
            )


def _store(job: Job, case_id: str, future: Any) -> float:
    from distributed.scheduler import KilledWorker

    try:
        files, seconds = future.result()
    except KilledWorker as error:
        raise JobError(
            f"Workers died {_DEATHS} times over this case; they may have too little memory.",
            remedy="Look at the logs of the workers, give them more memory, and run the job again.",
        ) from error
    except SSLSegError:
        raise
    with job.new_result(case_id) as folder:
        for name, content in files.items():
            if Path(name).name != name:
                raise JobError(f"A worker sent a file named {name!r}.")
            (folder / name).write_bytes(content)
    return seconds


# --- on a worker ---------------------------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()  # the engine is not made for several threads
_ready: dict[str, Any] = {}  # the last manifest's text -> its segmenter and scratch folder


def segment_case(
    manifest_text: str, case_id: str, shared: dict[str, bytes], own: dict[str, bytes]
) -> tuple[dict[str, bytes], float]:
    """On a worker: the files of one case's pseudo-label, and the seconds it took.

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
    return files, round(time.monotonic() - began, 2)


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


# --- SLURM -----------------------------------------------------------------------------------------------------------


def _slurm_configuration(path: Path) -> SlurmConfiguration:
    try:
        return SlurmConfiguration.model_validate(read_json(path))
    except ValidationError as error:
        raise JobError(f"The SLURM configuration {path} is wrong: {first_problem(error)}.") from error
    except (OSError, ValueError) as error:
        raise JobError(f"The SLURM configuration {path} cannot be read: {error}.") from error


def slurm_cluster_arguments(configuration: SlurmConfiguration) -> dict[str, Any]:
    """The arguments of ``dask_jobqueue.SLURMCluster``."""
    extra = [f"--gres=gpu:{configuration.gpus}"] if configuration.gpus else []
    resources = ["--resources", f"GPU={configuration.gpus}"] if configuration.gpus else []
    return {
        "cores": configuration.cores,
        "processes": 1,
        "memory": configuration.memory,
        "walltime": configuration.walltime,
        "queue": configuration.queue,
        "account": configuration.account,
        "interface": configuration.interface,
        "job_extra_directives": extra,
        "job_script_prologue": list(configuration.prologue),
        "worker_extra_args": ["--nthreads", "1", *resources],
    }


def _slurm_cluster(configuration: SlurmConfiguration, tasks: int) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise JobError("dask-jobqueue is not installed here.", remedy='pip install "sslseg[cluster]"') from error
    cluster = SLURMCluster(**slurm_cluster_arguments(configuration))
    cluster.scale(jobs=min(configuration.workers, tasks))
    return cluster


def _wait_for_workers(client: "Client", seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise JobError(
            f"No Dask worker came within {seconds:.0f} s.",
            remedy="Start workers with `dask worker ADDRESS --nthreads 1`.",
        ) from error

"""Dask workers as jobs of a SLURM system: asked for, waited for, replaced when lost, and ended with the run."""

import getpass
import logging
import math
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from SSLSegLib.errors import JobError
from SSLSegLib.files import read_json
from SSLSegLib.jobs.certificates import throwaway_certificate
from SSLSegLib.jobs.documents import first_problem
from SSLSegLib.processes import library_path, real_interpreter

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

__all__ = ["JOB_NAME", "SlurmConfiguration", "read_slurm_configuration", "slurm_client", "slurm_cluster_arguments"]

JOB_NAME = "sslseg"
"""Of the SLURM jobs, as ``squeue`` lists them."""

_ASK_SECONDS = 30  # for an answer of sbatch or squeue
_LOOK_SECONDS = 5  # between two looks for a first worker
_REPLACE_SECONDS = 15  # between two looks for lost workers
_FAILED_STARTS = 5  # SLURM jobs that are replaced though their worker never came; more would fail, too
_WRITE_ONE = "Write it as docs/cluster.md shows."
_LOG = logging.getLogger("SSLSegLib")


class SlurmConfiguration(BaseModel):
    """What ``slurm:CONFIG.json`` holds; see ``docs/cluster.md``.

    Args:
        workers: How many SLURM jobs, one worker each.
        cores, memory, walltime, queue, account: As SLURM has them.
        gpus: GPUs a worker asks for.
        interface: Network interface that nodes see each other on.
        prologue: Lines of shell before the worker starts (modules to load).
        directives: Any other options of sbatch, as ``--constraint=a100``.
        start_timeout: Seconds to wait for a worker, the first or when all are gone.
        tls: Encrypt, with a certificate made for this run: nobody else can talk to the scheduler or its workers.
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
    directives: tuple[str, ...] = ()
    start_timeout: float = Field(default=3600, gt=0)
    tls: bool = True


def read_slurm_configuration(path: Path) -> SlurmConfiguration:
    """Read ``CONFIG.json``.

    Raises:
        JobError: It cannot be read, or is not what :class:`SlurmConfiguration` says.
    """
    try:
        return SlurmConfiguration.model_validate(read_json(path))
    except ValidationError as error:
        problem = f"The SLURM configuration {path} is wrong: {first_problem(error)}."
        raise JobError(problem, remedy=_WRITE_ONE) from error
    except (OSError, ValueError) as error:
        problem = f"The SLURM configuration {path} cannot be read: {getattr(error, 'strerror', None) or error}."
        raise JobError(problem, remedy=_WRITE_ONE) from error


def slurm_cluster_arguments(
    configuration: SlurmConfiguration, logs: Path, security: "Security | None" = None
) -> dict[str, Any]:
    """The arguments of ``dask_jobqueue.SLURMCluster``.

    Args:
        configuration: What to ask for.
        logs: Folder for what the SLURM jobs print.
        security: Certificates of all who take part, as files that workers see.
    """
    from dask_jobqueue.slurm import SLURMJob
    from distributed import Security

    class QuotingJob(SLURMJob):
        """Puts the certificates' paths into the script for a shell to read."""

        def __init__(self, *args: Any, security: "Security | None" = None, **options: Any) -> None:
            if security is not None:
                own = security.get_tls_config_for_role("worker")
                paths = {part: shlex.quote(own[part]) for part in ("ca_file", "cert", "key")}
                security = Security(
                    tls_ca_file=paths["ca_file"], tls_worker_cert=paths["cert"], tls_worker_key=paths["key"]
                )
            super().__init__(*args, security=security, **options)

    gpus = configuration.gpus
    output = str(logs).replace("%", "%%")  # sbatch fills in names like %j
    return {
        "job_name": JOB_NAME,
        "cores": configuration.cores,
        "processes": 1,
        "memory": configuration.memory,
        "walltime": configuration.walltime,
        "queue": configuration.queue,
        "account": configuration.account,
        "interface": configuration.interface,
        "python": shlex.quote(str(real_interpreter())),
        "job_extra_directives": [
            f'--output="{output}/slurm-%j.out"',  # dask-jobqueue's own log_directory breaks at a space
            *([f"--gres=gpu:{gpus}"] if gpus else []),
            *configuration.directives,
        ],
        # Some sites do not hand the environment on (SBATCH_EXPORT=NONE), and the library need not be installed.
        "job_script_prologue": [*configuration.prologue, f"export PYTHONPATH={shlex.quote(library_path())}"],
        "worker_extra_args": ["--nthreads", "1", "--no-dashboard", *(["--resources", f"GPU={gpus}"] if gpus else [])],
        "job_cls": QuotingJob,
        "security": security,
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }


@contextmanager
def slurm_client(configuration: SlurmConfiguration, tasks: int, logs: Path) -> Iterator["Client"]:
    """A Dask client with at least one worker; every SLURM job that was started ends with it.

    While it lives, workers that are lost (their job was cancelled, or reached its walltime) are asked for anew.

    Args:
        configuration: What to ask for.
        tasks: More workers than that are not started.
        logs: Folder for what the SLURM jobs print; made if absent.

    Raises:
        JobError: There is no SLURM here, it refuses the job, or no worker comes.
    """
    try:
        import dask
        from dask_jobqueue import SLURMCluster
        from distributed import Client
    except ImportError as error:
        raise JobError("dask-jobqueue is not installed here.", remedy='pip install "sslseg[cluster]"') from error
    if shutil.which("sbatch") is None:
        raise JobError(
            "SLURM's sbatch is not on this machine's path.",
            remedy="Run the command where jobs are submitted (a login node), or use local or dask://HOST:PORT.",
        )
    logs.mkdir(parents=True, exist_ok=True)
    jobs = min(configuration.workers, tasks)
    with throwaway_certificate(logs) if configuration.tls else nullcontext() as certificate:
        security = certificate.security() if certificate else None
        with dask.config.set({"distributed.scheduler.http.routes": []}):  # no pages for all on a login node
            cluster = SLURMCluster(**slurm_cluster_arguments(configuration, logs, security))
        with cluster:
            _raise_if_refused(cluster.job_script())
            with Client(cluster, set_as_default=False) as client, _jobs_cancelled_at_the_end(cluster):
                cluster.scale(jobs=jobs)
                _wait_for_a_worker(client, cluster, configuration.start_timeout, logs)
                with _lost_workers_replaced(cluster, jobs, logs):
                    yield client


@contextmanager
def _jobs_cancelled_at_the_end(cluster: "SLURMCluster") -> Iterator[None]:
    """All by one call, first of all: Dask would let workers retire one by one, and a cancelled run has no time."""
    try:
        yield
    finally:
        numbers = [worker.job_id for worker in list(cluster.workers.values()) if worker.job_id]
        if numbers:
            _ask_slurm("scancel", *numbers)
        # What is forgotten need not retire; what is being submitted right now ends when the cluster is closed.
        cluster.loop.add_callback(cluster.worker_spec.clear)
        cluster.loop.add_callback(cluster.workers.clear)


def _raise_if_refused(script: str) -> None:
    """Ask SLURM before anything is queued: dask-jobqueue would only log a refusal, and wait."""
    with tempfile.TemporaryDirectory(prefix="sslseg-") as folder:
        path = Path(folder) / "job.sh"
        path.write_text(script)
        answer = subprocess.run(
            ["sbatch", "--test-only", str(path)], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )
    if answer.returncode:
        said = " ".join(line.strip() for line in answer.stderr.splitlines() if line.strip())
        raise JobError(
            f"SLURM refuses the workers: {said or f'sbatch ended with {answer.returncode}'}.",
            remedy="Change queue, account, cores, memory, gpus or directives in the SLURM configuration.",
        )


def _wait_for_a_worker(client: "Client", cluster: "SLURMCluster", seconds: float, logs: Path) -> None:
    """Wait as long as SLURM knows the jobs: in the queue that may take hours, after a failed start it is in vain."""
    deadline, unknown = time.monotonic() + seconds, 0
    while (left := deadline - time.monotonic()) > 0:
        try:
            client.wait_for_workers(1, timeout=max(math.ceil(min(left, _LOOK_SECONDS)), 1))
            return
        except TimeoutError:
            numbers = {worker.job_id for worker in cluster.workers.values() if getattr(worker, "job_id", None)}
            known = _known_jobs()
            unknown = unknown + 1 if numbers and known is not None and not numbers & known else 0
        if unknown == 2:  # twice, since a worker may be about to say that it is there
            raise JobError(
                f"The SLURM jobs ended without a worker: {_last_line(logs, numbers)}",
                remedy=f"See {logs}; workers need the same Python and the paths that this machine has (a shared disk).",
            )
    raise JobError(
        f"SLURM started no worker within {seconds:.0f} s.",
        remedy=f"Look at `squeue --name={JOB_NAME}`, ask for less, or raise start_timeout; logs are in {logs}.",
    )


def _known_jobs() -> set[str] | None:
    """Numbers of the user's jobs that wait or run; ``None`` when SLURM does not answer."""
    said = _ask_slurm("squeue", "--noheader", "--format=%i", f"--user={getpass.getuser()}")
    return None if said is None else set(said.split())


def _ask_slurm(*command: str) -> str | None:
    """What a program of SLURM prints; ``None`` when SLURM does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _last_line(logs: Path, numbers: set[str]) -> str:
    for number in sorted(numbers):
        path = logs / f"slurm-{number}.out"
        if path.is_file():
            with path.open("rb") as opened:
                opened.seek(max(os.path.getsize(path) - 4000, 0))
                lines = opened.read().decode(errors="replace").split("\n")
            if said := [line.strip() for line in lines if line.strip()]:
                return said[-1][-300:]
    return "they printed nothing."


@contextmanager
def _lost_workers_replaced(cluster: "SLURMCluster", jobs: int, logs: Path) -> Iterator[None]:
    """Keep asking for the same number of SLURM jobs.

    Dask forgets a worker that is lost, and asks for another one when it is told the number again; of a SLURM job that
    ends before its worker is there it never hears.
    """
    ended = threading.Event()

    def keep() -> None:
        there: set[str | None] = set()  # SLURM jobs whose worker has been there: Dask sees to them itself
        failed = 0
        while not ended.wait(_REPLACE_SECONDS):
            numbers = {name: worker.job_id for name, worker in list(cluster.workers.items())}
            connected = {worker["name"] for worker in list(cluster.scheduler_info["workers"].values())}
            there |= {numbers[name] for name in connected & numbers.keys()}
            absent = {name: number for name, number in numbers.items() if number not in there}
            known = _known_jobs() if absent else None
            if ended.is_set():
                return
            for name, number in absent.items():
                if known is not None and number not in known and failed < _FAILED_STARTS:
                    failed += 1
                    said = _last_line(logs, {number}) if number else "SLURM did not take it."
                    _LOG.warning("A SLURM job ended before its worker was there; asking for another one. %s", said)
                    cluster.loop.add_callback(cluster.workers.pop, name, None)
            cluster.scale(jobs=jobs)

    thread = threading.Thread(target=keep, name="sslseg-slurm", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()  # the thread is not waited for: it may be asking SLURM

"""Where a job's work is done: here, on a running Dask cluster, or on workers that a SLURM system starts for us.

    local                 this process (the default; needs no Dask)
    dask://HOST:PORT      a Dask scheduler that runs already
    tls://HOST:PORT       the same, encrypted and with certificates: Dask's own configuration names them, or
                          ?ca=FILE&cert=FILE&key=FILE
    slurm:CONFIG.json     workers started through SLURM as the file says

What the tasks are: :mod:`SSLSegLib.jobs.cluster_cases` and :mod:`SSLSegLib.jobs.cluster_folds`.
"""

import importlib.util
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.certificates import Certificate
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.slurm import read_slurm_configuration, slurm_client
from SSLSegLib.progress import Progress

if TYPE_CHECKING:
    from distributed import Client, Security

__all__ = [
    "Company",
    "Scheduler",
    "connected",
    "died_again_and_again",
    "is_local",
    "parse_scheduler",
    "patience_of",
    "require_devices",
    "require_scheduler",
    "resources_of",
]

CONNECT_TIMEOUT = 20  # seconds
WITHOUT_WORKERS = 600  # seconds to wait for new workers when all are gone
_DEATHS = 3  # workers that may die with one task in hand before it is given up; Dask's own number


@dataclass(frozen=True)
class Scheduler:
    """A parsed ``--scheduler``.

    Args:
        kind: Which of the three.
        target: Address of a Dask scheduler, or path of a SLURM configuration.
        send: Send inputs with the task rather than have workers read them from a shared disk.
        certificate: Of a Dask scheduler that asks for one; None where Dask's configuration names it.
    """

    kind: Literal["local", "dask", "slurm"]
    target: str = ""
    send: bool = False
    certificate: Certificate | None = None


def require_devices(scheduler: str, names: Iterable[str]) -> None:
    """Try the devices of this machine before any work; on a cluster there are others.

    Raises:
        DeviceError: One of them is not there or does not compute.
    """
    if not is_local(scheduler):
        return
    for name in sorted(set(names) - {"cpu"}):  # which is always there, and torch takes long to load
        from SSLSegLib.weights.device import resolve_device

        resolve_device(name)


def is_local(text: str) -> bool:
    """Whether a ``--scheduler`` names this process."""
    return parse_scheduler(text).kind == "local"


def parse_scheduler(text: str) -> Scheduler:
    """Understand ``local``, ``dask://HOST:PORT``, ``slurm:CONFIG.json``, the latter two with ``?data=send``.

    Raises:
        JobError: It is none of them.
    """
    target, _, query = text.partition("?")
    parts = [part.partition("=") for part in query.split("&") if part]
    options = {name: unquote(value) for name, _, value in parts}
    send = options.pop("data", "shared")
    certificate = None
    if target.startswith("tls://") and {"ca", "cert"} <= options.keys() <= {"ca", "cert", "key"}:
        ca, cert = options.pop("ca"), options.pop("cert")
        certificate = Certificate(Path(ca), Path(cert), Path(options.pop("key", cert)))
    if not options and send in ("shared", "send"):
        sent = send == "send"
        if target == "local" and not query:
            return Scheduler("local")
        if target.startswith("dask://") and ":" in target[7:]:
            return Scheduler("dask", f"tcp://{target[7:]}", sent)
        if target.startswith(("tcp://", "tls://")) and ":" in target[6:]:
            return Scheduler("dask", target, sent, certificate)
        if target.startswith("slurm:") and target[6:]:
            return Scheduler("slurm", target[6:], sent)
    raise JobError(
        f"{text!r} is no scheduler.",
        remedy="Use local, dask://HOST:PORT, tls://HOST:PORT or slurm:CONFIG.json (see docs/cluster.md).",
    )


def require_scheduler(text: str, kind: JobKind) -> None:
    """What is wrong with a ``--scheduler`` and can be known without asking it.

    Raises:
        JobError: It is none, its SLURM configuration or its certificates cannot be used, jobs of this kind run on one
            machine, or Dask is not installed.
    """
    scheduler = parse_scheduler(text)
    if scheduler.kind == "local":
        return
    if not kind.on_clusters:
        raise JobError(f"Jobs of kind {kind.name!r} run on one machine.", remedy="Leave --scheduler away.")
    if scheduler.kind == "slurm":
        read_slurm_configuration(Path(scheduler.target))
    if importlib.util.find_spec("distributed") is None:
        raise _without_dask()
    _security_of(scheduler)


def _security_of(scheduler: Scheduler) -> "Security | None":
    """The certificates of a client, which have been read once."""
    if not scheduler.target.startswith("tls://"):
        return None
    from distributed import Security

    security = scheduler.certificate.security() if scheduler.certificate else Security()
    try:
        if security.get_connection_args("client")["ssl_context"] is not None:
            return security
        problem = f"{scheduler.target} needs certificates, and Dask's configuration names none."
    except OSError as error:  # ssl.SSLError, too
        problem = f"The certificates for {scheduler.target} cannot be read: {error}."
    raise JobError(
        problem, remedy=f"Use {scheduler.target}?ca=FILE&cert=FILE&key=FILE, or Dask's distributed.comm.tls settings."
    )


def _without_dask() -> JobError:
    return JobError(
        "Dask is not installed here.", remedy='Install it with: pip install "sslseg[cluster]", or use local.'
    )


@contextmanager
def connected(scheduler: Scheduler, tasks: int, logs: Path) -> Iterator["Client"]:
    """A Dask client of the scheduler with at least one worker; workers that we started end with it.

    Args:
        scheduler: Where.
        tasks: How many there are: more workers are not started.
        logs: Folder for what workers print that we start.

    Raises:
        JobError: Dask is not installed, nobody answers, or no worker comes.
    """
    configuration = read_slurm_configuration(Path(scheduler.target)) if scheduler.kind == "slurm" else None
    try:
        import distributed
    except ImportError as error:
        raise _without_dask() from error
    if configuration is not None:
        with slurm_client(configuration, tasks, logs) as client:
            yield client
        return
    try:
        client = distributed.Client(
            scheduler.target, security=_security_of(scheduler), timeout=CONNECT_TIMEOUT, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        refused = "certificate" in str(error)
        raise JobError(
            f"The Dask scheduler at {scheduler.target} refuses our certificate, or we its."
            if refused
            else f"No Dask scheduler answers at {scheduler.target} ({type(error).__name__}).",
            remedy="Use certificates of the same authority as the scheduler's."
            if refused
            else "Start one with `dask scheduler`, check address and firewall, and use tls:// where it asks for it.",
        ) from error
    with client:
        _wait_for_workers(client, 60)
        yield client


def patience_of(scheduler: Scheduler) -> float:
    """Seconds to wait for new workers when all are gone; in the queue of a SLURM system it may take longer."""
    if scheduler.kind != "slurm":
        return WITHOUT_WORKERS
    return max(read_slurm_configuration(Path(scheduler.target)).start_timeout, WITHOUT_WORKERS)


def resources_of(client: "Client") -> dict[str, int] | None:
    """What a task asks for: a GPU where any worker has said that it has one."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any(worker.get("resources", {}).get("GPU") for worker in workers) else None


def died_again_and_again(what: str) -> JobError:
    """For ``KilledWorker``: the error for people.

    Args:
        what: What was in hand.
    """
    return JobError(
        f"Workers died {_DEATHS} times over {what}; they may have too little memory.",
        remedy="Look at the logs of the workers, give them more memory, and run the job again.",
    )


class Company:
    """Whether any workers are there; they may all be gone for a while, but not for ever."""

    def __init__(self, client: "Client", progress: Progress, patience: float = WITHOUT_WORKERS) -> None:
        self._client = client
        self._progress = progress
        self._patience = patience
        self._alone_since: float | None = None

    @property
    def size(self) -> int:
        """How many workers there are now."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def wait(self) -> None:
        """Called while nothing happens.

        Raises:
            JobError: When there have been no workers for as long as its patience lasts.
        """
        if self.size > 0:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
            self._progress("warning", message="All Dask workers are gone; waiting for new ones.")
        elif time.monotonic() - self._alone_since > self._patience:
            raise JobError(
                f"No Dask worker has been there for {self._patience:.0f} s.",
                remedy="Start workers and run the job again; what is finished is kept.",
            )


def _wait_for_workers(client: "Client", seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise JobError(
            f"No Dask worker came within {seconds:.0f} s.",
            remedy="Start workers with `dask worker ADDRESS --nthreads 1`.",
        ) from error

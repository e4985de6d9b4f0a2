"""Trainings as tasks of a Dask cluster, one for each fold.

A worker trains its fold where a local run would, in a child process and in the run's folder, which must lie on a disk
that all machines see under the same path: the preprocessed data are large, and a fold whose worker was lost goes on
from its last checkpoint on another one. Draws have names, so the result is that of a local run on the same kind of
device.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.schedulers import (
    WITHOUT_WORKERS,
    Company,
    connected,
    died_again_and_again,
    is_local,
    parse_scheduler,
    patience_of,
    resources_of,
)
from SSLSegLib.processes import library_path, real_interpreter
from SSLSegLib.progress import Progress
from SSLSegLib.selftraining.children import Child, Events, real_device, run_children

if TYPE_CHECKING:
    from distributed import Client

    from SSLSegLib.selftraining.run import Trainer

__all__ = ["ClusterTrainer", "fold_trainer", "refuse_sending"]

_POLL_SECONDS = 0.2


def refuse_sending(scheduler: str) -> None:
    """Trainings need a shared disk.

    Raises:
        JobError: When the scheduler is to get its data with the tasks.
    """
    if not is_local(scheduler) and parse_scheduler(scheduler).send:
        raise JobError(
            "Trainings on a cluster need a disk that all machines share; their data are not sent.",
            remedy="Put the job on a shared disk and leave ?data=send away.",
        )


@contextmanager
def fold_trainer(
    scheduler: str, devices: Sequence[str], folds: int, progress: Progress, logs: Path
) -> Iterator[tuple[tuple[str, ...], "Trainer"]]:
    """What trains folds, and the devices that ``auto`` stands for there.

    Args:
        scheduler: See :func:`~SSLSegLib.jobs.schedulers.parse_scheduler`.
        devices: As in the options of a training; may be ``auto``.
        folds: How many are trained side by side at most.
        progress: Hears of the cluster.
        logs: Folder for what workers print that are started for it.

    Raises:
        JobError: The cluster cannot be reached.
        DeviceError: A device is not there.
    """
    refuse_sending(scheduler)
    if is_local(scheduler):
        yield tuple(map(real_device, devices)), run_children
        return
    progress("stage", stage="Connecting to the cluster", total=None)
    where = parse_scheduler(scheduler)
    with connected(where, folds, logs) as client:
        resources = resources_of(client)
        asked = client.map(real_device, list(devices), pure=False, resources=resources)
        yield tuple(client.gather(asked)), ClusterTrainer(client, progress, patience_of(where))


class ClusterTrainer:
    """Trains folds as :func:`~SSLSegLib.selftraining.children.run_children` does, on the workers of a cluster."""

    def __init__(self, client: "Client", progress: Progress, patience: float = WITHOUT_WORKERS) -> None:
        self.client = client
        self.progress = progress
        self.patience = patience

    def __call__(self, children: Sequence[Child], slots: Sequence[str], interpreter: Path, on_event: Events) -> None:
        """Run children; which worker takes which is the scheduler's affair.

        Args:
            children: What to run.
            slots: Their first says on which kind of device; a worker uses the device it was given.
            interpreter: Of this machine; a worker finds its own.
            on_event: Gets every event of every child.

        Raises:
            SelfTrainingError: When a child fails. The others are stopped.
            JobError: Workers died over a fold again and again, or there are none any more.
        """
        company, resources = Company(self.client, self.progress, self.patience), resources_of(self.client)
        device = slots[0].split(":")[0]
        running: dict[Any, Child] = {}
        try:
            for child in children:
                child.forget_events()
                task = self.client.submit(train_on_worker, child, device, pure=False, retries=0, resources=resources)
                running[task] = child
            while running:
                time.sleep(_POLL_SECONDS)
                company.wait()
                for task, child in list(running.items()):
                    ended = task.done()  # before reading: its last words are then there
                    child.tell(on_event)
                    if ended:
                        del running[task]
                        _raise_what_went_wrong(task, child)
        finally:  # a worker sees that its task is no longer wanted and stops the child
            if running:
                self.client.cancel(list(running), force=True)


def _raise_what_went_wrong(task: Any, child: Child) -> None:
    from distributed.scheduler import KilledWorker

    try:
        task.result()
    except KilledWorker as error:
        raise died_again_and_again(child.name) from error


# --- on a worker ---------------------------------------------------------------------------------------------------


def train_on_worker(child: Child, device: str) -> None:
    """Run one child here, with this machine's interpreter, for as long as the cluster wants it.

    Raises:
        SelfTrainingError: When it fails.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    interpreter = real_interpreter()
    if not child.folder.is_dir():
        raise JobError(
            f"On the worker, there is no folder {child.folder}.",
            remedy="Give workers the same paths (a shared disk).",
        )
    own = replace(
        child,
        spec=child.spec.model_copy(update={"interpreter": interpreter}),
        environment={**child.environment, "PYTHONPATH": library_path()},
    )
    run_children([own], [device], interpreter, lambda *_: None, wanted=wanted)

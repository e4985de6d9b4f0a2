"""A training in this process, or in several that train together, one on each device, by accelerate."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.processes import real_interpreter
from SSLSegLib.progress import Progress
from SSLSegLib.selftraining.children import Child, child_environment, run_children
from SSLSegLib.unimatch.options import UniMatchOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingTask", "accelerator_on", "joined", "train_together"]

_WORKER = "SSLSegLib.unimatch.worker"

_met: "list[torch.distributed.ProcessGroup]" = []
"""Groups this process was in, never let go: were the model's gradient reducer the last to hold one, its end would wait,
with the interpreter's lock in hand, for a thread of the group that needs that lock (torch 2.13)."""


class TrainingTask(BaseModel):
    """A training as a process is told of it.

    Args:
        cohort, cohort_folder: What is trained on, and where its relative paths begin.
        folder: Of the run, see :class:`SSLSegLib.unimatch.folders.UniMatchFolder`.
        options: How.
        guides: Unlabelled case -> folder of its pseudo-label, for the guide ``tffs``.
        sam2: Weights for the guide ``sam2``.
        device: Where.
        workers: Processes that draw batches.
        rank, processes: Which of how many that train together.
        threads: CPU threads; None leaves them as they are.
        meeting: File through which the processes find each other.
        interpreter: A real Python, for worker processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: dict[str, Any]
    cohort_folder: Path
    folder: Path
    options: UniMatchOptions
    guides: dict[str, Path] = Field(default_factory=dict)
    sam2: str | None = None
    device: str = "auto"
    workers: int = 0
    rank: int = 0
    processes: int = 1
    threads: int | None = None
    meeting: Path | None = None
    interpreter: Path | None = None

    def loaded_cohort(self) -> Cohort:
        """The cohort as an object."""
        return Cohort.from_dict(self.cohort, self.cohort_folder)


def accelerator_on(device: torch.device | str) -> "Accelerator":
    """accelerate on a device; several processes have met before (see :func:`joined`).

    Mixed precision is none of its business here: bfloat16 needs no scaling of gradients, and the losses are float32.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    device = torch.device(device)
    if PartialState._shared_state and PartialState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)  # a training before, in this process, was elsewhere
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no")


@contextmanager
def joined(task: TrainingTask) -> Iterator[None]:
    """Meet the other processes of a training, if there are any, and part from them at the end.

    They meet in a file: a port might be taken, or a host name unknown.
    """
    if task.processes == 1:
        yield
        return
    # What a launcher such as torchrun sets and accelerate looks for. Each process sees its own device only, as the
    # first; the address is asked for but not used.
    own = {"RANK": str(task.rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(task.processes), "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(own)
    torch.distributed.init_process_group(
        "nccl" if task.device.startswith("cuda") else "gloo",
        init_method=Path(task.meeting).as_uri(),
        rank=task.rank,
        world_size=task.processes,
    )
    _met.append(torch.distributed.group.WORLD)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def train_together(task: TrainingTask, devices: tuple[str, ...], progress: Progress) -> None:
    """Train in one child process for each device; gradients are averaged over all of them in every step.

    Raises:
        SSLSegError: What a child failed with; the others are stopped. The training can be taken up again.
    """
    interpreter = real_interpreter()
    logs = task.folder / "processes"
    logs.mkdir(parents=True, exist_ok=True)
    threads = max(1, torch.get_num_threads() // len(devices))
    progress("device", device=", ".join(devices), outcome=f"{len(devices)} processes train together.")
    with tempfile.TemporaryDirectory(prefix="sslseg-") as meeting:
        changes = {"processes": len(devices), "meeting": Path(meeting) / "ranks", "interpreter": interpreter}
        children = [
            Child(
                name=f"process {rank} of the training",
                module=_WORKER,
                spec=task.model_copy(update={**changes, "rank": rank, "threads": threads}),
                folder=logs,
                stem=f"rank_{rank}",
                environment=child_environment(threads=threads, workers=0),
            )
            for rank in range(len(devices))
        ]
        run_children(children, devices, interpreter, lambda child, event: _retell(event, progress))


def _retell(event: dict[str, Any], progress: Progress) -> None:
    said = {name: value for name, value in event.items() if name != "time"}
    progress(said.pop("event"), **said)

"""The parent's side of child processes: start them with a real interpreter, follow their events, stop all of them."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from SSLSegLib.files import write_text
from SSLSegLib.messages import read_message
from SSLSegLib.processes import kill_tree, library_path, this_process
from SSLSegLib.selftraining.errors import SelfTrainingError

__all__ = ["Child", "child_environment", "real_device", "run_children"]

_POLL_SECONDS = 0.1

Events = Callable[["Child", dict[str, Any]], None]


@dataclass
class Child:
    """One process to run.

    Args:
        name: For messages: "fold 2 of round 1".
        module: Run as ``python -m``.
        spec: Written as JSON for it.
        folder: Where its specification, events and log lie.
        stem: Their common name.
        environment: Additions to the environment.
    """

    name: str
    module: str
    spec: BaseModel
    folder: Path
    stem: str
    environment: Mapping[str, str]
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    last_words: dict[str, Any] = field(default_factory=dict, repr=False)
    _read: int = 0

    @property
    def log(self) -> Path:
        """What nnU-Net prints, and the traceback if it fails."""
        return self.folder / f"{self.stem}.log"

    @property
    def events(self) -> Path:
        """One JSON object a line."""
        return self.folder / f"{self.stem}.events.jsonl"

    def start(self, interpreter: Path) -> None:
        """Start it; its events from now on are new."""
        specification = self.folder / f"{self.stem}.json"
        write_text(specification, self.spec.model_dump_json(indent=2) + "\n")
        self.forget_events()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(interpreter), "-m", self.module, str(specification), str(self.events), *map(str, this_process())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: no console beside the application
            )

    def forget_events(self) -> None:
        """Leave what has been written so far to those who have read it."""
        self._read = self.events.stat().st_size if self.events.exists() else 0

    def new_events(self) -> list[dict[str, Any]]:
        """What the whole lines written since the last call say.

        Raises:
            MessageError: When a line is no message (:mod:`SSLSegLib.messages`).
        """
        if not self.events.exists():
            return []
        with open(self.events, "rb") as log:
            log.seek(self._read)
            written = log.read()
        whole = written[: written.rfind(b"\n") + 1]
        self._read += len(whole)
        return [read_message(line, f"A line of {self.events}") for line in whole.splitlines()]

    def tell(self, on_event: "Events") -> None:
        """Hand new events on; how the child ended is kept."""
        for event in self.new_events():
            if event["event"] in ("failed", "ended"):
                self.last_words = event
            else:
                on_event(self, event)

    def stop(self) -> None:
        """End the process and everything it started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            kill_tree(self.process.pid, patience=0)
        self.process.wait()


def run_children(
    children: Sequence[Child],
    slots: Sequence[str],
    interpreter: Path,
    on_event: Events,
    *,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Run children, one at a time on each slot, in order.

    Args:
        children: What to run. The environment variable ``CUDA_VISIBLE_DEVICES`` is set for a slot on a GPU.
        slots: A device for each child that may run at a time; a device may appear several times.
        interpreter: A real Python.
        on_event: Gets every event of every child, also those of children that are stopped.
        wanted: Asked all the time; when it says no, all children are stopped.

    Raises:
        SelfTrainingError: When a child fails. The others are stopped; what they have finished stays on disk.
    """
    waiting = list(children)
    running: dict[int, Child] = {}
    try:
        while waiting or running:
            for slot in range(len(slots)):
                if slot not in running and waiting:
                    running[slot] = waiting.pop(0)
                    _on_device(running[slot], slots[slot])
                    running[slot].start(interpreter)
            time.sleep(_POLL_SECONDS)
            if not wanted():
                raise SelfTrainingError("The work is no longer wanted.", remedy="Run it again to go on.")
            for slot, child in list(running.items()):
                code = child.process.poll() if child.process else None  # before reading: its last words are then there
                child.tell(on_event)
                if code is not None:
                    child.stop()
                    del running[slot]
                    if code != 0 or child.last_words.get("event") != "ended":
                        raise _failure(child, code)
    finally:  # also on Ctrl-C and on an error of the listener
        for child in running.values():
            child.stop()
        for child in running.values():
            with suppress(Exception):  # why all end is said already
                child.tell(on_event)  # what it finished since it was last read: a resumed run does not do it again


def child_environment(*, threads: int, workers: int, **folders: Path) -> dict[str, str]:
    """What a child with nnU-Net in it needs to know; nothing of it goes into this process's own environment.

    Args:
        threads: CPU threads of the child.
        workers: Augmentation processes of the child.
        folders: ``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``.
    """
    return {
        "PYTHONPATH": library_path(),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MPLBACKEND": "Agg",
        "nnUNet_def_n_proc": str(threads),
        "nnUNet_n_proc_DA": str(workers),
        "nnUNet_wandb_enabled": "0",
        **{name: str(path) for name, path in folders.items()},
    }


def real_device(name: str) -> str:
    """The device that ``auto`` stands for on this machine; other names stay as they are."""
    if name != "auto":
        return name
    from SSLSegLib.weights.device import resolve_device

    return str(resolve_device(name).device)


def _on_device(child: Child, device: str) -> None:
    if device.startswith("cuda:"):
        number, visible = device.removeprefix("cuda:"), os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible and number.isdigit() and int(number) < len(visible.split(",")):
            number = visible.split(",")[int(number)]  # "cuda:1" is the second of those that this process may use
        child.environment = {**child.environment, "CUDA_VISIBLE_DEVICES": number}
    if "device" in type(child.spec).model_fields:
        child.spec = child.spec.model_copy(update={"device": device.split(":")[0]})


def _failure(child: Child, code: int) -> SelfTrainingError:
    last = child.last_words
    again = "Run the same command again to resume."
    if last.get("event") == "failed":
        message = str(last["message"])
        remedy = last.get("remedy") or f"The log is {child.log}. {again}"
        if "out of memory" in message.lower():
            remedy = f"Use another device, --configuration 2d or the quick preset. {again}"
        return SelfTrainingError(
            f"{child.name.capitalize()} failed: {message}", case_id=last.get("case"), remedy=remedy
        )
    return SelfTrainingError(
        f"{child.name.capitalize()} ended without a word (exit code {code}): it was killed, or memory ran out.",
        remedy=f"The log is {child.log}. {again}",
    )

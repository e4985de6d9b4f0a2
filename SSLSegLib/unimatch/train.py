"""Training: steps, the moving average, and a state on disk from which it goes on as if never interrupted."""

import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from SSLSegLib.errors import JobError
from SSLSegLib.files import atomic_path, sha256_of, write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.seeds import named_seed
from SSLSegLib.unimatch.checkpoints import load_weights
from SSLSegLib.unimatch.data import Batch, StepBatches
from SSLSegLib.unimatch.distributed import accelerator_on
from SSLSegLib.unimatch.guides import Guide
from SSLSegLib.unimatch.network import SegmentationNetwork
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.schedules import ema_ratio, poly, update_teacher
from SSLSegLib.unimatch.step import StepLosses, step_losses

__all__ = ["Trainer", "require_encoder"]

STATE, SETTINGS, CURVE = "state.pt", "training.json", "curve.jsonl"
STAGE = "Training"
SAVE_SECONDS = 120.0
"""A state is written at least so often, however slow the steps; what comes out does not depend on it."""


class Trainer:
    """Student, teacher and optimiser of one run in one folder.

    A step depends on the state and its number only: batches, dropout and prompts are drawn by name. So a run that was
    killed and taken up again is equal to an uninterrupted one, number for number on a CPU.

    Args:
        folder: Of this training.
        batches: What each step sees.
        classes: Network outputs, the background included.
        options: How.
        guide: Second supervisor.
        accelerator: Where; of one of several processes that train together, each with batches of its own. One on the
            CPU by default.
        progress: Gets ``stage``, ``progress`` and ``metric`` events.
        workers: Processes that draw batches beside the training; they change nothing but the time.

    Raises:
        JobError: The folder holds another training, or its state cannot be read.
        WeightsError: The encoder's weights cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        batches: StepBatches,
        classes: int,
        options: UniMatchOptions,
        guide: Guide | None = None,
        *,
        accelerator: Accelerator | None = None,
        progress: Progress = silent,
        workers: int = 0,
    ) -> None:
        self.folder, self.batches, self.options, self.guide = Path(folder), batches, options, guide
        self.accelerator = accelerator or accelerator_on("cpu")
        self.device, self.progress, self.workers = self.accelerator.device, progress, workers
        settings = self._settings()
        self._refuse_another(settings)
        begun = (self.folder / STATE).is_file()
        self.student = _fresh_network(options, classes, pretrained=not begun).to(self.device)
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimizer = _optimizer(self.student, options)
        self.step = 0
        if begun:
            self._resume()
        self.accelerator.wait_for_everyone()  # all have looked at the folder before anything is written
        if not begun and self.accelerator.is_main_process:
            write_json(self.folder / SETTINGS, settings)
        # Of several processes, the network that averages gradients over them; else the student itself.
        self.shared_student, self.optimizer = self.accelerator.prepare(self.student, self.optimizer)

    def run(self, until: int | None = None) -> None:
        """Train to the end (or, for tests of resuming, to some step) and keep the state."""
        last = self.options.steps if until is None else min(until, self.options.steps)
        self.progress("stage", stage=STAGE, total=self.options.steps)
        self.student.train()
        started, first, saved = time.monotonic(), self.step, time.monotonic()
        for batch in self._drawn(last):
            losses = self.one_step(batch.to(self.device))
            if self.step % self.options.report_every == 0 or self.step == last:
                speed = (time.monotonic() - started) / (self.step - first)
                self._report(losses, speed)
            if self.step % self.options.save_every == 0 or self.step == last or time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()

    def one_step(self, batch: Batch) -> StepLosses:
        """One update of student and teacher."""
        rate = self.options.learning_rate * poly(self.step, self.options.steps, self.options.power)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16", cache_enabled=True
        )
        losses = step_losses(
            self.shared_student,
            self.teacher,
            batch,
            self.options,
            self.step,
            self.guide,
            rank=self.accelerator.process_index,
            autocast=autocast,
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses.total)
        self.optimizer.step()
        most = self.options.mean_teacher.ema if self.options.method == "mean-teacher" else self.options.ema
        update_teacher(self.teacher, self.student, ema_ratio(self.step, most))
        self.step += 1
        return losses

    def save(self) -> None:
        """Write the state whole or not at all; it is the same in all processes."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(self.folder / STATE) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        try:
            state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
            self.student.load_state_dict(state["student"])
            self.teacher.load_state_dict(state["teacher"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        except Exception as error:
            raise JobError(
                f"The training state {self.folder / STATE} cannot be read.",
                remedy="Remove it to train from the start, or choose another folder.",
            ) from error

    def _settings(self) -> dict[str, Any]:
        """What a folder's training depends on: the options, the slices, and the weights it started from."""
        known = self._known_settings()
        encoder = self.options.encoder_weights
        digest = None if encoder is None else (known or {}).get("encoder_sha256")
        if encoder is not None and Path(encoder).is_file():  # needed at the start only, and may be gone later
            digest = sha256_of(Path(encoder))
        settings = {
            "schema_version": 1,
            "options": self.options.what(),
            "processes": self.accelerator.num_processes,
            "encoder_sha256": digest,
            "labelled": [[stack.case_id, *stack.image.shape[:3]] for stack in self.batches.labelled],
            "unlabelled": [[stack.case_id, *stack.image.shape[:3]] for stack in self.batches.unlabelled],
        }
        return json.loads(json.dumps(settings))

    def _refuse_another(self, settings: dict[str, Any]) -> None:
        known = self._known_settings()
        if known is not None and known != settings:
            raise JobError(
                f"{self.folder} holds a training with other options, cases, processes or weights to start from.",
                remedy="Choose another folder, or give the same options.",
            )

    def _known_settings(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _drawn(self, last: int) -> Iterator[Batch]:
        steps = range(self.step, last)
        if not self.workers:
            return (self.batches[step] for step in steps)
        return iter(DataLoader(self.batches, batch_size=None, sampler=steps, num_workers=self.workers))

    def _report(self, losses: StepLosses, seconds: float) -> None:
        means = self._mean_over_processes(losses)
        numbers: dict[str, Any] = {
            "step": self.step,
            **means,
            "guide_weight": losses.guide_weight,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds_per_step": round(seconds, 4),
        }
        if not math.isfinite(numbers["loss"]):
            raise JobError(
                f"The loss is no longer a number at step {self.step}.",
                remedy="Lower the learning rate, or train in float32.",
            )
        shown = {name: None if value != value else value for name, value in numbers.items()}
        self.progress("metric", stage=STAGE, steps=self.options.steps, **shown)
        self.progress("progress", stage=STAGE, done=self.step, total=self.options.steps)
        if not self.accelerator.is_main_process:
            return
        with open(self.folder / CURVE, "a", encoding="utf-8") as opened:
            opened.write(json.dumps(shown) + "\n")

    def _mean_over_processes(self, losses: StepLosses) -> dict[str, float]:
        said = {
            "loss": losses.total,
            "supervised": losses.supervised,
            "unsupervised": losses.unsupervised,
            "confident": losses.confident,
            "guide_agreement": losses.guide_agreement,
        }
        means = self.accelerator.reduce(torch.stack([each.detach().float() for each in said.values()]), "mean")
        return dict(zip(said, means.tolist(), strict=True))


def require_encoder(folder: Path, options: UniMatchOptions) -> None:
    """Refuse weights that do not fill the encoder, before slices are prepared; a training that was begun needs none.

    Raises:
        WeightsError: The file is missing, damaged, or made for another network.
    """
    if options.encoder_weights is not None and not (Path(folder) / STATE).is_file():
        load_weights(SegmentationNetwork(options.network, classes=2), options.encoder_weights)


def _fresh_network(options: UniMatchOptions, classes: int, *, pretrained: bool) -> SegmentationNetwork:
    """The network at the start: random weights that depend on the seed alone, then the encoder's from a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(options.seed, "weights"))
        network = SegmentationNetwork(options.network, classes)
    if options.encoder_weights is not None and pretrained:
        load_weights(network, options.encoder_weights)
    if options.freeze_encoder:
        network.encoder.requires_grad_(False)
    return network


def _optimizer(network: SegmentationNetwork, options: UniMatchOptions) -> torch.optim.AdamW:
    groups = [
        {"params": [each for each in network.encoder.parameters() if each.requires_grad], "factor": 1.0},
        {"params": list(network.decoder.parameters()), "factor": options.decoder_factor},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=(0.9, 0.999),
        weight_decay=options.weight_decay,
        fused=True,
    )

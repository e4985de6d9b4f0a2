"""Stage 1: training VESSA on pairs of target and template (paper 2, section 3.1, equations 2 and 3).

On several GPUs: ``accelerate launch -m SSLSegLib vessa train ...``; each process draws pairs of its own.
"""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from SSLSegLib.errors import JobError
from SSLSegLib.files import atomic_path, read_json, write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.seeds import named_seed
from SSLSegLib.vessa.features import sam2_features
from SSLSegLib.vessa.losses import LossWeights, vessa_loss
from SSLSegLib.vessa.model import Vessa, VessaOutput
from SSLSegLib.vessa.options import TrainingOptions
from SSLSegLib.vessa.pairs import Pair, StageOneData, TrainingPairs
from SSLSegLib.vessa.pictures import masks_to_frames
from SSLSegLib.vessa.saving import place_vessa, save_vessa
from SSLSegLib.vessa.segmenter import ABSENT

__all__ = ["StageOne", "dice_scores", "warmup_cosine"]

STATE, SETTINGS, CURVE = "state.pt", "training.json", "curve.jsonl"
STAGE = "Training VESSA"


class StageOne:
    """The training in one folder; taken up again after any end.

    Pairs are drawn by the step's name, so on a CPU a resumed run is equal to an uninterrupted one, number for number
    (dropout apart, whose generator is seeded by the step as well).

    Args:
        folder: ``state.pt``, ``training.json``, ``curve.jsonl``, ``bank/`` and the trained ``model/``.
        model: A :class:`~SSLSegLib.vessa.model.Vessa`, with the weights to start from.
        data: See :func:`~SSLSegLib.vessa.pairs.prepare_data`.
        options: How.
        weights: Of the loss.
        progress: Gets ``stage``, ``progress`` and ``metric`` events.
        cpu: Stay on the CPU even where there is a GPU.

    Raises:
        JobError: The folder holds another training, or its state cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        model: Vessa,
        data: StageOneData,
        options: TrainingOptions,
        *,
        weights: LossWeights | None = None,
        progress: Progress = silent,
        cpu: bool = False,
    ) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError:
            raise JobError(
                "The package accelerate is not installed, which this training needs.",
                remedy="Install it: pip install 'sslseg[training]'.",
            ) from None

        self.folder, self.data, self.options = Path(folder), data, options
        self.weights = weights or LossWeights()
        self.accelerator = Accelerator(
            mixed_precision="bf16" if options.precision == "bfloat16" else "no",
            cpu=cpu,
            # SAM2's heads for three masks and for quality are there but not used.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.progress = progress if self.accelerator.is_main_process else silent
        self.plain = model
        model.train_what_is_trained()
        if options.checkpoint_activations and model.language is not None:
            model.language.checkpoint_activations()
        self.settings = self._settings()
        self._refuse_another(self.settings)
        place_vessa(model, self.accelerator.device)
        self.model, self.optimizer = self.accelerator.prepare(model, _optimizer(model, options))
        self.step, self.best = 0, -1.0
        if (self.folder / STATE).is_file():
            self._resume()
        elif self.accelerator.is_main_process:
            write_json(self.folder / SETTINGS, self.settings)
            data.bank.save(self.folder / "bank")

    def run(self, until: int | None = None) -> float:
        """Train to the end (or, for tests of resuming, to some step); returns the best validation Dice."""
        options = self.options
        last = options.steps if until is None else min(until, options.steps)
        self.progress("stage", stage=STAGE, total=options.steps)
        pairs = self.data.pairs(options, rank=self.accelerator.process_index)
        while self.step < last:
            numbers = self.one_update(pairs)
            if self.step % options.validate_every == 0 or self.step == options.steps:
                numbers["validation_dice"] = self.validate()
                if numbers["validation_dice"] > self.best:
                    self.best = numbers["validation_dice"]
                    self._save_model()
            self._report(numbers)
            if self.step % options.save_every == 0 or self.step == last:
                self.save()
        return self.best

    def one_update(self, pairs: TrainingPairs) -> dict[str, float]:
        """One update from ``accumulate`` batches; returns its losses."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * warmup_cosine(self.step, self.options.steps, self.options.warmup)
            group["lr"] *= self.options.learning_rate
        parts: list[dict[str, float]] = []
        for micro in range(self.options.accumulate):
            number = self.step * self.options.accumulate + micro
            torch.manual_seed(named_seed(self.options.seed, "dropout", number, self.accelerator.process_index))
            drawn = pairs[number]
            # Between processes gradients are joined once, with the last batch of an update.
            last = micro == self.options.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                inputs, masks = self._inputs(drawn)
                with self.accelerator.autocast():
                    output = self.model(inputs)
                losses = vessa_loss(output, masks, self.weights)
                self.accelerator.backward(losses.total / self.options.accumulate)
            names = ("total", "text", "dice", "bce", "presence")
            parts.append({name: float(getattr(losses, name).detach()) for name in names})
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        means = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
        if not math.isfinite(means["total"]):
            raise JobError(
                f"The loss is no longer a number at step {self.step}.",
                remedy="Lower the learning rate, or train in float32.",
            )
        return {"loss": means.pop("total"), **means}

    @torch.no_grad()
    def validate(self) -> float:
        """Mean Dice of masks at the frame's size over the validation pairs; an empty mask that should be empty is 1."""
        self.model.eval()
        pairs = self.data.validation_pairs(self.options)
        scores = []
        for number in range(len(pairs)):
            inputs, masks = self._inputs(pairs[number])
            with self.accelerator.autocast():
                output = self.plain(inputs)
            scores += dice_scores(output, masks)
        self.model.train()
        return sum(scores) / len(scores)

    def save(self) -> None:
        """Write the state whole or not at all; only what is trained."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "best": self.best,
            "model": {name: parameter.detach().cpu() for name, parameter in self._trained()},
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(self.folder / STATE) as temporary:
            torch.save(state, temporary)

    def _inputs(self, drawn: list[Pair]):
        language = self.plain.pairs(
            [each.target for each in drawn],
            [each.template for each in drawn],
            [each.template_mask for each in drawn],
            [each.instruction for each in drawn],
            [each.answer for each in drawn],
        )
        masks = masks_to_frames([each.target_mask for each in drawn], self.plain.segmenter.side)
        return language.to(self.accelerator.device), masks.to(self.accelerator.device)

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, each) for name, each in self.plain.named_parameters() if each.requires_grad]

    def _resume(self) -> None:
        try:
            state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
            trained = dict(self._trained())
            if trained.keys() != state["model"].keys():
                raise ValueError("other parameters")
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(state["model"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.best = state["step"], state["best"]
        except Exception as error:
            raise JobError(
                f"The training state {self.folder / STATE} cannot be read.",
                remedy="Remove it to train from the start, or choose another folder.",
            ) from error

    def _save_model(self) -> None:
        if self.accelerator.is_main_process:
            training = {"step": self.step, "validation_dice": self.best, **self.settings}
            save_vessa(self.folder / "model", self.plain, training=training)

    def _settings(self) -> dict[str, Any]:
        data = self.data
        datasets = sorted({entry.dataset for entry in data.slices.entries})
        settings = {
            "schema_version": 1,
            "options": self.options.what(),
            "weights": self.weights.model_dump(mode="json"),
            "configuration": self.plain.configuration.model_dump(mode="json"),
            "processes": self.accelerator.num_processes,
            "datasets": datasets,
            "slices": [len(data.training), len(data.validation), len(data.bank)],
            "bank": data.bank.fingerprint(),
            # Frozen, so no state holds it: with another one the trained parts would go on beside a stranger.
            "sam2": sam2_features(self.plain.segmenter.sam2).name,
        }
        return json.loads(json.dumps(settings))

    def _refuse_another(self, settings: dict[str, Any]) -> None:
        try:
            known = read_json(self.folder / SETTINGS)
        except FileNotFoundError:
            return
        if known != settings:
            raise JobError(
                f"{self.folder} holds a training with other options, data or model.",
                remedy="Choose another folder, or give the same options.",
            )

    def _report(self, numbers: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        shown = {"step": self.step, **numbers}
        self.progress("metric", stage=STAGE, steps=self.options.steps, **shown)
        self.progress("progress", stage=STAGE, done=self.step, total=self.options.steps)
        with open(self.folder / CURVE, "a", encoding="utf-8") as opened:
            opened.write(json.dumps(shown) + "\n")


def dice_scores(output: VessaOutput, masks: torch.Tensor) -> list[float]:
    """Dice of each pair's hard mask, with the gate of the presence."""
    logits = torch.where(output.presence[:, :, None, None] > 0, output.logits.float(), ABSENT)
    found = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False) > 0
    scores = []
    for ours, true in zip(found.flatten(1), masks.flatten(1) > 0, strict=True):
        size = int(ours.sum()) + int(true.sum())
        scores.append(1.0 if size == 0 else 2 * int((ours & true).sum()) / size)
    return scores


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: a straight rise over the first part, then a cosine to 0."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def _optimizer(model: Vessa, options: TrainingOptions) -> torch.optim.AdamW:
    sam2 = [each for each in model.segmenter.parameters() if each.requires_grad]
    groups = [{"params": sam2, "factor": options.sam2_factor}]
    if model.language is not None:
        language = [each for each in model.language.parameters() if each.requires_grad]
        groups.append({"params": language, "factor": 1.0})
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.999), weight_decay=options.weight_decay)

"""Training of the bundled checkpoint: teacher forcing over whole chains at once, then chains on its own memories."""

import contextlib
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from ..errors import JobError
from ..files import atomic_path, sha256_of, write_json
from ..progress import Progress, silent
from ..seeds import named_seed
from ..weights.reading import read_state_dict
from ..weights.sam2_model import build_sam2
from .beginning import match_by_likeness, start_from_background
from .configuration import small_configuration
from .losses import correspondence_loss, matching_loss, segmentation_loss
from .samples import Batch, SampleOptions, Samples
from .teaching import Teacher

__all__ = ["Trainer", "TrainingOptions"]


SHORT_SHAPES = ((2, 3), (4, 3), (6, 2), (10, 2))
CHAIN_SHAPES = ((3, 6), (6, 6), (10, 5), (16, 4))


@dataclass(frozen=True)
class TrainingOptions:
    """The recipe. Training ends at ``steps`` or after ``minutes`` of training time, whichever comes first.

    Args:
        seed: Of the weights, the data and the noise in training.
        image_size: Side of a frame in pixels at the end of the training.
        small_size, small_until: Until that share of the training frames are this small; the weights fit every size and
            small frames are cheaper by their area.
        batch: Subject pairs in a step (two targets each).
        phantoms: Share of the samples from the abdomens of the phantom cohorts, of subjects kept apart.
        new_contrast: Share of the generated samples whose two subjects have nothing of their contrast in common.
        unplaced: Share of the targets whose place in the labelled subjects is not told.
        answered: Share of the targets for which an earlier answer is told instead, as to later insertions.
        matching: Weight of the loss on where the memory attention looks (not on chain steps).
        correspondence: Weight of the loss on the likeness of equal structures in the two subjects.
        easing: Steps over which targets stop being identified by their brightness.
        rate, warmup: Peak learning rate; steps of linear warm-up; then a cosine to a hundredth.
        chains_from: Share of the training after which ``chains`` of the steps run on the model's own memories.
        ema: Decay of the averaged weights, which are what is validated and exported.
        workers: Processes that generate data.
        validation: Batches of the fixed validation set.
        keep_every, validate_every: Seconds between saved states and between validations.
        device: Where it runs.
        bfloat16: Compute in it where precision allows; None: on CUDA. Processors with AVX512-BF16 gain a fifth.
    """

    seed: int = 1
    image_size: int = 160
    small_size: int = 128
    small_until: float = 0.55
    batch: int = 4
    steps: int = 6000
    minutes: float = math.inf
    phantoms: float = 0.2
    new_contrast: float = 0.25
    unplaced: float = 0.2
    answered: float = 0.3
    matching: float = 1.0
    correspondence: float = 0.5
    easing: int = 2500
    rate: float = 5e-4
    warmup: int = 200
    chains_from: float = 0.3
    chains: float = 0.55
    ema: float = 0.997
    workers: int = 1
    validation: int = 8
    keep_every: float = 180.0
    validate_every: float = 480.0
    device: str = "cpu"
    bfloat16: bool | None = None


def _no_pile(batch: Batch) -> Batch:
    return batch


class Trainer:
    """One training in a folder: ``state.pt`` (to resume from), ``curve.csv``, ``validation.csv``, ``options.json``.

    Args:
        folder: Made if absent. A folder with a state is resumed from.
        options: The recipe; a resumed training may change everything but seed and widths.
        progress: Listener: ``progress`` (done, total in percent) and ``metric`` events.
        start_from: The state of another training, whose averaged weights to start from, or a ``.safetensors`` file.
    """

    def __init__(
        self, folder: Path, options: TrainingOptions, *, progress: Progress = silent, start_from: Path | None = None
    ) -> None:
        self.folder, self.options, self.progress = Path(folder), options, progress
        self.folder.mkdir(parents=True, exist_ok=True)
        self.step, self.elapsed = 0, 0.0
        self.started_from: str | None = None  # SHA-256 of the file
        self.device = torch.device(options.device)
        self.configuration = small_configuration(image_size=options.image_size)
        self._build(min(options.small_size, options.image_size) if options.small_until > 0 else options.image_size)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.state_path.exists():
            self._resume()
        elif start_from is not None:
            self._start_from(start_from)
            self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        more = {"configuration": self.configuration.model_dump(), "started_from": self.started_from}
        write_json(self.folder / "options.json", asdict(options) | more)

    def _build(self, image_size: int) -> None:
        """The model and its optimiser at a frame size, with random weights that depend on the seed only."""
        torch.manual_seed(named_seed(self.options.seed, "weights"))
        model = build_sam2(small_configuration(image_size=image_size))
        start_from_background(model)
        match_by_likeness(model)
        self.model = model.train().to(self.device)
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        plain = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=self.options.rate, betas=(0.9, 0.98))

    def _grow(self) -> bool:
        """Change to the final frame size when it is time; the weights and the optimiser's state stay."""
        if self.model.image_size == self.options.image_size or self.fraction < self.options.small_until:
            return False
        weights, moments = self.model.state_dict(), self.optimiser.state_dict()
        self._build(self.options.image_size)
        self.model.load_state_dict(weights)
        self.optimiser.load_state_dict(moments)
        return True

    @property
    def state_path(self) -> Path:
        return self.folder / "state.pt"

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise JobError(
                f"The training state {path.name} cannot be read.", remedy="Start in a new folder or remove the state."
            ) from error

    def _start_from(self, path: Path) -> None:
        weights = read_state_dict(path) if path.suffix == ".safetensors" else self._read(path)["average"]
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise JobError(
                f"{path.name} holds the weights of another network.", remedy="Start from a training of sslseg-small."
            ) from error
        self.started_from = sha256_of(path)

    def _resume(self) -> None:
        state = self._read(self.state_path)
        if state["seed"] != self.options.seed:
            raise JobError(
                f"The folder holds a training with seed {state['seed']}, not {self.options.seed}.",
                remedy="Give the same seed or another folder.",
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step, self.elapsed = state["average"], state["step"], state["elapsed"]
        self.started_from = state.get("started_from")

    def save(self) -> None:
        """Write the state whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "seed": self.options.seed,
            "started_from": self.started_from,
        }
        with atomic_path(self.state_path) as temporary:
            torch.save(state, temporary)

    @property
    def fraction(self) -> float:
        """How much of the training is done, 0 to 1."""
        return max(self.step / self.options.steps, self.elapsed / (60 * self.options.minutes))

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.options.warmup)
        return self.options.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(self.fraction, 1.0))))

    def _loader(self, seed: int, start: int, workers: int) -> Iterator[Batch]:
        # First many different pairs with few slices each (neighbours tell little new), then chains.
        shapes = CHAIN_SHAPES if self.fraction >= self.options.chains_from else SHORT_SHAPES
        options = SampleOptions(
            image_size=self.model.image_size,
            batch=self.options.batch,
            shapes=shapes,
            distinct=(0.85, 0.15),
            easing=self.options.easing,
            phantoms=self.options.phantoms,
            changes=(0.8 - self.options.new_contrast, 0.2, self.options.new_contrast),
        )
        samples = Samples(options, seed, start=start)
        if workers == 0:
            return iter(samples)
        return iter(DataLoader(samples, batch_size=None, num_workers=workers, prefetch_factor=3, collate_fn=_no_pile))

    def run(self) -> None:
        """Train to the end, or on from where the folder's state stands."""
        options = self.options
        self._grow()
        fixed = self.validation_set()
        chains = None
        last_kept = last_validated = last_tick = time.monotonic()
        while self.fraction < 1:
            if self._grow():
                fixed, chains = self.validation_set(), None
            if chains != (self.fraction >= options.chains_from):
                chains = self.fraction >= options.chains_from
                batches = self._loader(named_seed(options.seed, "training"), self.step, options.workers)
            torch.manual_seed(named_seed(options.seed, "noise", self.step))
            measured = self._train(next(batches))
            self.step += 1
            now = time.monotonic()
            self.elapsed, last_tick = self.elapsed + now - last_tick, now
            if self.step % 20 == 0:
                self._record("curve.csv", {"step": self.step, "seconds": round(self.elapsed)} | measured)
                self.progress("progress", stage="training", done=round(100 * self.fraction, 1), total=100)
            if now - last_kept > options.keep_every:
                self.save()
                last_kept = now
            if now - last_validated > options.validate_every or self.fraction >= 1:
                self._record(
                    "validation.csv", {"step": self.step, "seconds": round(self.elapsed)} | self.validate(fixed)
                )
                last_validated = last_tick = time.monotonic()
        self.save()

    def _train(self, batch: Batch) -> dict[str, Any]:
        options = self.options
        batch = batch.to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        teacher = Teacher(self.model, unplaced=options.unplaced, answered=options.answered)
        draw = torch.rand(()).item()
        ramp = options.chains if self.fraction >= options.chains_from else 0.0
        with self._arithmetic():
            if draw < ramp:
                decoded, prompted = teacher.chain(batch, flip=0.03)
                results = [decoded]
            else:
                # The labelled slices alone must do at first: with true masks of the previous slices at hand
                # (even noised ones) nothing else is learnt.
                taught = 0.0 if self.fraction < options.chains_from else 0.33
                results, prompted = teacher.passes(batch, 1, taught=taught)
        start = batch.labelled
        chain = teacher.masks[:, start:]
        use = teacher.prompted[:, None].expand(chain.shape[:2])
        losses, dices = zip(*(segmentation_loss(result, chain, use) for result in results), strict=True)
        labelled = teacher.masks[:, teacher.pointed]
        own, _ = segmentation_loss(prompted, labelled, labelled.flatten(2).any(2))
        loss = sum(losses) / len(losses) + 0.1 * own
        matching = loss.new_zeros(())
        if results[0].pointed_at:
            matching = matching_loss(results[0], chain, use)
            loss = loss + options.matching * matching
        likeness = correspondence_loss(teacher.features.float(), batch.structures, start)
        loss = loss + options.correspondence * likeness
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self._follow()
        return {
            "phase": "chain" if draw < ramp else "passes",
            "rate": round(self._rate(), 7),
            "loss": round(loss.item(), 4),
            "dice": round(dices[-1].item(), 4),
            "matching": round(matching.item(), 4),
            "correspondence": round(likeness.item(), 4),
            "norm": round(norm.item(), 3),
        }

    def _arithmetic(self) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        cuda = self.device.type == "cuda"
        if self.options.bfloat16 or (cuda and self.options.bfloat16 is None):
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            if not cuda:  # whose fused attention is slow backwards on narrow heads
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return stack

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def validation_set(self) -> list[Batch]:
        """Generated subjects of seeds that training never draws, the same in every training."""
        samples = SampleOptions(
            image_size=self.model.image_size, batch=self.options.batch, shapes=((8, 8),), targets=2, pool=4, renewal=1.0
        )
        stream = iter(Samples(samples, named_seed("validation")))
        threads = torch.get_num_threads()
        batches = [next(stream) for _ in range(self.options.validation)]
        torch.set_num_threads(threads)
        return batches

    @torch.no_grad()
    def validate(self, batches: list[Batch]) -> dict[str, float]:
        """Mean Dice of chains on the model's own memories, with the averaged weights; whole chains, not slices."""
        kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        dices, ratios, right = [], [], []
        for batch in batches:
            teacher = Teacher(self.model)
            decoded, _ = teacher.chain(batch.to(self.device))
            truth = teacher.masks[:, batch.labelled :]
            logits = F.interpolate(decoded.logits, truth.shape[-2:], mode="bilinear", align_corners=False)
            found = (logits > 0) & (decoded.score > 0)[..., None, None]
            both, size, guess = ((x.flatten(1)).sum(1).float() for x in (found & truth, truth, found))
            use = teacher.prompted & (size > 0)
            dices.append((2 * both / (size + guess))[use])
            ratios.append((guess / size.clamp(min=1))[use])
            right.append(((decoded.score > 0) == truth.flatten(2).any(2))[teacher.prompted].float().flatten())
        self.model.load_state_dict(kept)
        self.model.train()
        dice, ratio = torch.cat(dices), torch.cat(ratios)
        return {
            "dice": round(dice.mean().item(), 4),
            "median": round(dice.median().item(), 4),
            "volume": round(ratio.median().item(), 3),
            "presence": round(torch.cat(right).mean().item(), 4),
        }

    def _record(self, name: str, row: dict[str, Any]) -> None:
        path = self.folder / name
        new = not path.exists()
        with open(path, "a", newline="") as opened:
            writer = csv.DictWriter(opened, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.progress("metric", stage=name.removesuffix(".csv"), **row)

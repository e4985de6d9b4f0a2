"""TFFS-MedSAM2 on cached features: the same probabilities as SAM2's video predictor, without its repeated work.

Paper 1 (SSL-MedSAM2), Algorithm 2. What is cached and why the result is the same: ``docs/tffs.md``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from ..progress import Progress, silent
from .chain import HalfChain, Tracker
from .ensemble import ProbabilitySums
from .features import VolumeFeatures
from .memory_attention import MemoryAttention
from .network import Levels, TrackingNetwork
from .options import TffsOptions
from .place import place_prompts
from .precision import attention_kernel, computing
from .side_by_side import side_by_side
from .template import Direction, LabelledTemplate, Passed, chosen_prompts, masks_as_prompts

__all__ = ["FrameSource", "TffsEngine", "WorkCounts"]

# Slices that go through the image encoder or the prompt path together: more gains nothing on a CPU.
_SLICES_AT_ONCE = {"cpu": 1, "cuda": 8, "mps": 2}
_CHAINS_AT_ONCE = {"cpu": 4, "cuda": 32, "mps": 4}
# Frames no larger are too little for the threads of a CPU to share: several are computed side by side.
_SMALL_FRAME = 256


class FrameSource(Protocol):
    """Frames (n, 3, S, S): a tensor, or anything with a length that gives a tensor for a slice of indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> torch.Tensor: ...


@dataclass
class WorkCounts:
    """How much an engine has computed so far: slices encoded, slices prompted, frames tracked (chains x slices)."""

    encoded: int = 0
    prompted: int = 0
    tracked: int = 0


class TffsEngine:
    """The two halves of TFFS: what is done once per volume, and the chains.

    Args:
        model: A ``SAM2Base`` (any size); it is moved to the device and put into eval mode.
        options: Settings.
        device: ``cpu``, ``cuda``, ``mps`` or a ``torch.device``.

    Raises:
        WeightsError: The model's configuration is not one that mask-prompted tracking here covers.

    Example:
        >>> engine = TffsEngine(model, TffsOptions(), "cpu")
        >>> unlabelled = engine.encode(frames)
        >>> template = engine.template(engine.encode(labelled_frames), mask, in_plane=(183, 140))
        >>> sums = ProbabilitySums(len(unlabelled), (183, 140))
        >>> engine.propagate(unlabelled, template, [3, 17, 40], (183, 140), sums)
        >>> sums.mean
    """

    def __init__(
        self, model: torch.nn.Module, options: TffsOptions | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.options = options or TffsOptions()
        self.device = torch.device(device)
        self.counts = WorkCounts()
        model = model.to(self.device).eval()
        self._network = TrackingNetwork(model, round_memories=self.options.round_memories)
        arithmetic, backend = attention_kernel(self.options.precision, self.device, self.options.attention)
        memory_attention = MemoryAttention(model.memory_attention, self._network.top_positions, arithmetic, backend)
        self._small = self.device.type == "cpu" and self._network.image_size <= _SMALL_FRAME
        # Products in bfloat16 are a setting of the whole program: who computes beside would have them, too.
        self._alone = not self._small or arithmetic == "bfloat16 products"
        chains_at_once = self.options.batch or _CHAINS_AT_ONCE.get(self.device.type, 4)
        self._slices_at_once = _SLICES_AT_ONCE.get(self.device.type, 1)
        self._tracker = Tracker(self._network, memory_attention, chains_at_once)
        self._in_use: LabelledTemplate | None = None

    def encode(self, frames: FrameSource, progress: Progress = silent, *, folder: Path | None = None) -> VolumeFeatures:
        """Image features of all slices of a volume, each encoded once.

        Args:
            frames: float32 (n, 3, S, S), normalised; or any :class:`FrameSource`.
            progress: Told ``progress`` with stage ``encode`` after each batch of slices.
            folder: Keep the features in files there rather than in memory.
        """
        total = len(frames)
        features = VolumeFeatures(total, self.device, folder)
        starts = range(0, total, self._slices_at_once)

        def encoded(start: int) -> Levels:
            with self._computing():
                return self._network.encode(frames[start : start + self._slices_at_once])

        with self._side_by_side(len(starts)) as mapped:
            for start, levels in zip(starts, mapped(encoded, starts), strict=True):
                features.store(start, levels)
                stop = min(start + self._slices_at_once, total)
                self.counts.encoded += stop - start
                progress("progress", stage="encode", done=stop, total=total)
        return features

    def template(
        self, features: VolumeFeatures, mask: np.ndarray | torch.Tensor, in_plane: tuple[int, int]
    ) -> LabelledTemplate | None:
        """Prompt the labelled slices of one class.

        Args:
            features: Of the labelled volume.
            mask: bool (K, J, I), in the labelled volume's own grid.
            in_plane: (rows, columns) of the unlabelled volumes that the template is for.

        Returns:
            None where no slice has any foreground left at that size: such a pair is to be skipped.

        Raises:
            ValueError: Mask and features have different numbers of slices.
        """
        mask = torch.as_tensor(mask).bool()
        if mask.shape[0] != features.slices:
            raise ValueError(f"The mask has {mask.shape[0]} slices, the image features have {features.slices}.")
        in_plane = (int(in_plane[0]), int(in_plane[1]))
        foreground, prompts = masks_as_prompts(mask, in_plane, self._network.image_size)
        if not foreground:
            return None
        prompted = chosen_prompts(foreground, self.options.max_conditioning_slices)
        prompts = prompts[[foreground.index(index) for index in prompted]]

        def remembered(start: int) -> tuple[torch.Tensor, torch.Tensor]:
            some = slice(start, start + self._slices_at_once)
            with self._computing():
                return self._network.prompt(features.levels(prompted[some]), prompts[some].to(self.device))

        starts = range(0, len(prompted), self._slices_at_once)
        with self._side_by_side(len(starts)) as mapped:
            memories, pointers = zip(*mapped(remembered, starts), strict=True)
        self.counts.prompted += len(prompted)
        return LabelledTemplate(
            features=features,
            in_plane=in_plane,
            prompted=prompted,
            left_out=frozenset(foreground) - frozenset(prompted),
            memories=torch.cat(memories),
            pointers=torch.cat(pointers).float(),
        )

    def propagate(
        self,
        features: VolumeFeatures,
        template: LabelledTemplate,
        positions: Sequence[int],
        in_plane: tuple[int, int],
        sums: ProbabilitySums,
        progress: Progress = silent,
        *,
        place: np.ndarray | None = None,
    ) -> None:
        """Insert the labelled volume before each of the positions and add the runs' probabilities to the sums.

        Slices from the position on are reached by the forward pass only, those before it by the backward pass only, so
        each run is two half-chains. All half-chains that are at one slice go through the network together, those of
        either direction apart on a CPU. If this raises, nothing has been added.

        Args:
            features: Of the unlabelled volume, n slices.
            template: The labelled volume, made for the same ``in_plane``.
            positions: R insertion positions in 0..n-1.
            in_plane: (rows, columns) of the unlabelled volume.
            sums: What the R runs are added to.
            progress: Told ``progress`` with stage ``propagate``: tracked frames done of R x n.
            place: float32 (n, rows, columns), 0 to 1, how often the class lies there in the labelled cases
                (:func:`~SSLSegLib.tffs.place.place_prior`): each slice's rough mask, for weights that were trained
                to be told.

        Raises:
            ValueError: The template, the sums or the prior are for another size, or a position is out of range.
        """
        slices = features.slices
        self._check(slices, template, positions, tuple(in_plane), sums, place)
        self._use(template)
        limit = min(slices + template.slices, self._network.model.max_obj_ptrs_in_encoder)
        runs = ProbabilitySums(slices, sums.in_plane, self.device)
        rough = None if place is None else self._rough(place)
        done, total = 0, slices * len(positions)

        def tracked(front: list[tuple[HalfChain, int]], remember: bool) -> torch.Tensor:
            frames, levels, known = self._frames(features, rough, [here for _, here in front])
            chains = [chain for chain, _ in front]
            with self._computing():
                logits = self._tracker.step(chains, frames, levels, template, limit, rough=known, remember=remember)
                return _probabilities(logits, runs.in_plane)

        with self._side_by_side(2) as mapped, self._computing():
            self._tracker.project(template)
            started: dict[Direction, list[HalfChain]] = {"forward": [], "backward": []}
            for at in range(slices):
                for direction, here in (("forward", at), ("backward", slices - 1 - at)):
                    # The labelled block lies before slice k: forward chains begin at k, backward chains at k - 1.
                    beginning = here if direction == "forward" else here + 1
                    history = (
                        self._history(template, direction, limit, told=rough is not None)
                        if beginning in positions
                        else []
                    )
                    started[direction] += [
                        self._tracker.chain(direction, template.slices, history)
                        for position in positions
                        if position == beginning
                    ]
                fronts = self._fronts(started, at, slices)
                not_last = [at < slices - 1] * len(fronts)
                for front, found in zip(fronts, mapped(tracked, fronts, not_last), strict=True):
                    runs.add_slices([here for _, here in front], found)
                    done += len(front)
                    self.counts.tracked += len(front)
                    progress("progress", stage="propagate", done=done, total=total)
        runs.count = len(positions)
        sums.add(runs)

    def _fronts(
        self, started: dict[Direction, list[HalfChain]], at: int, slices: int
    ) -> list[list[tuple[HalfChain, int]]]:
        """Chains that step together, each with its slice: on a GPU both directions, else one slice at a time."""
        forward = [(chain, at) for chain in started["forward"]]
        backward = [(chain, slices - 1 - at) for chain in started["backward"]]
        fronts = [forward, backward] if self.device.type == "cpu" else [forward + backward]
        return [front for front in fronts if front]

    def _frames(self, features: VolumeFeatures, rough: torch.Tensor | None, slices: list[int]):
        """For each chain which frame it is at, and of those frames the features and the rough masks, if any."""
        distinct = sorted(set(slices))
        known = None if rough is None else rough[distinct]
        return [distinct.index(here) for here in slices], features.levels(distinct), known

    def _computing(self) -> AbstractContextManager[None]:
        return computing(self.options.precision, self.device, one_thread=self._small)

    def _side_by_side(self, most: int) -> AbstractContextManager[Callable[..., Iterator[Any]]]:
        return side_by_side(1 if self._alone else min(torch.get_num_threads(), most))

    def _rough(self, place: np.ndarray | torch.Tensor) -> torch.Tensor:
        """A place prior as rough masks (n, 1, 4h, 4w)."""
        return place_prompts(torch.as_tensor(place).to(self.device), self._network.prompt_side)

    def _history(
        self, template: LabelledTemplate, direction: Direction, limit: int, *, told: bool = False
    ) -> list[Passed]:
        """The template's empty slices as a chain passes them; tracked once per direction.

        Where chains are told the class's place, these are told that there is none.
        """
        if (direction, limit, told) not in template.histories:
            absent = self._rough(torch.zeros(1, 1, 1)) if told else None
            prompted = {template.coordinate(index, direction) for index in template.prompted}
            left_out = {template.coordinate(index, direction) for index in template.left_out}
            first = min(prompted)
            chain = self._tracker.chain(direction, first)
            for coordinate in range(first, template.slices):
                if coordinate in prompted or coordinate in left_out:
                    continue
                chain.coordinate = coordinate
                levels = template.features.levels([template.coordinate(coordinate, direction)])
                self._tracker.step([chain], [0], levels, template, limit, rough=absent)
                self.counts.tracked += 1
            template.histories[direction, limit, told] = list(chain.passed)
        return template.histories[direction, limit, told]

    def _use(self, template: LabelledTemplate) -> None:
        """Only one template's projected keys are alive at a time: they are its largest part by far."""
        if self._in_use is not None and self._in_use is not template:
            self._in_use.release()
        self._in_use = template

    def _check(self, slices, template, positions, in_plane, sums, place) -> None:
        if template.in_plane != in_plane:
            raise ValueError(f"The template was made for slices of {template.in_plane}, not {in_plane}.")
        if sums.slices != slices or sums.in_plane != in_plane:
            raise ValueError(f"The sums are for {sums.slices} slices of {sums.in_plane}, not {slices} of {in_plane}.")
        if not all(0 <= position < slices for position in positions):
            raise ValueError(f"Insertion positions must be in 0..{slices - 1}, got {list(positions)}.")
        if place is not None and place.shape != (slices, *in_plane):
            raise ValueError(f"The place prior is of {place.shape}, not {(slices, *in_plane)}.")


def _probabilities(logits: torch.Tensor, in_plane: tuple[int, int]) -> torch.Tensor:
    resized = F.interpolate(logits.float(), size=in_plane, mode="bilinear", align_corners=False)
    return torch.sigmoid(resized[:, 0])

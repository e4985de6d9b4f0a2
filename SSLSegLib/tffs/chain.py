"""Half-chains: the sequential part of the work, from the labelled block out to one end of the unlabelled volume."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .attention import KeyValues
from .memory_attention import FrameConstants, MemoryAttention, Partial
from .network import Levels, TrackingNetwork
from .precision import multiplying
from .template import Direction, LabelledTemplate, Passed

__all__ = ["HalfChain", "Tracker"]


@dataclass(eq=False)
class HalfChain:
    """One chain on its way out of the labelled block, with the few frames it remembers.

    Args:
        direction: Which way it travels.
        coordinate: Travel coordinate of the frame it tracks next.
        passed: The frames it has tracked, oldest first; those out of reach are dropped by themselves.
    """

    direction: Direction
    coordinate: int
    passed: deque[Passed]

    def recent(self, reach: int) -> list[Passed]:
        """Tracked frames within ``reach`` frames, nearest first."""
        return [frame for frame in reversed(self.passed) if self.coordinate - frame.coordinate <= reach]


class Tracker:
    """Takes chains one frame further, several at a time.

    Args:
        network: The model's parts.
        memory_attention: Its memory attention taken apart.
        batch: How many chains go through the network together.
    """

    def __init__(self, network: TrackingNetwork, memory_attention: MemoryAttention, batch: int) -> None:
        self.network = network
        self.memory_attention = memory_attention
        self.batch = batch

    def chain(self, direction: Direction, coordinate: int, passed: Sequence[Passed] = ()) -> HalfChain:
        """A chain that begins with the given frames behind it."""
        # Pointers reach further back than memories.
        reach = max(self.network.recent, self.network.model.max_obj_ptrs_in_encoder - 1)
        return HalfChain(direction, coordinate, deque(passed, maxlen=reach))

    def step(
        self,
        chains: Sequence[HalfChain],
        frames: Sequence[int],
        levels: Levels,
        template: LabelledTemplate,
        pointer_limit: int,
        *,
        rough: torch.Tensor | None = None,
        remember: bool = True,
    ) -> torch.Tensor:
        """Track one frame per chain.

        Args:
            chains: B chains out of the same template; each is moved on by one frame.
            frames: Which of the n frames in ``levels`` each chain is at.
            levels: Image features of the n frames.
            template: Their template.
            pointer_limit: Smaller of the whole video's length and the model's maximum number of pointers.
            rough: What is known of the masks in the n frames beforehand, logits (n, 1, 4h, 4w).
            remember: Encode the new memories; needless on a chain's last frame.

        Returns:
            Mask logits (B, 1, 4h, 4w).
        """
        keys = self.project(template)
        with multiplying(self.memory_attention.arithmetic):
            # Layer 0 up to the conditioning memories is the same for all chains at a slice: once per frame.
            constants = self.memory_attention.begin(levels[-1])
            shared = self.memory_attention.attend_shared(constants, keys[0])
        logits: list[torch.Tensor | None] = [None] * len(chains)
        for rows in self._batches(chains):
            which = [frames[row] for row in rows]
            batch = [chains[row] for row in rows]
            rows_logits = self._step_batch(
                batch,
                _take(levels, which),
                FrameConstants(*_take(constants, which)),
                Partial(*_take(shared, which)),
                template,
                keys,
                pointer_limit,
                None if rough is None else _take([rough], which)[0],
                remember,
            )
            for row, row_logits in zip(rows, rows_logits, strict=True):
                logits[row] = row_logits
        return torch.stack(logits)

    def _step_batch(self, chains, levels, constants, shared, template, keys, pointer_limit, rough, remember):
        with multiplying(self.memory_attention.arithmetic):
            local = self._local_keys(chains, template, pointer_limit)
            conditioned = self.memory_attention.finish(constants, shared, keys, local)
        decoded = self.network.decode(conditioned, levels[:-1], rough)
        memories = self.network.remember(levels[-1], decoded) if remember else None
        for row, chain in enumerate(chains):
            if memories is not None:
                chain.passed.append(Passed(chain.coordinate, memories[row], decoded.pointers[row]))
            chain.coordinate += 1
        return decoded.logits

    def _batches(self, chains: Sequence[HalfChain]) -> list[list[int]]:
        """Rows that go together: as many recent memories each, and not more than ``batch``."""
        alike = defaultdict(list)
        for row, chain in enumerate(chains):
            alike[len(chain.recent(self.network.recent))].append(row)
        return [
            rows[start : start + self.batch] for rows in alike.values() for start in range(0, len(rows), self.batch)
        ]

    def project(self, template: LabelledTemplate) -> list[KeyValues]:
        """Keys and values of a template's memories by layer, made once (before chains of it step side by side)."""
        if template.keys is None:
            with multiplying(self.memory_attention.arithmetic):
                positions = self.network.memory_positions + self.network.memory_slot(0)
                values = self.memory_attention.values(template.memories)
                template.keys = [
                    KeyValues(
                        self.memory_attention.memory_keys(layer, template.memories, positions).flatten(0, 1),
                        values[layer].flatten(0, 1),
                    )
                    for layer in range(self.memory_attention.depth)
                ]
        return template.keys

    def _local_keys(
        self, chains: Sequence[HalfChain], template: LabelledTemplate, pointer_limit: int
    ) -> list[list[KeyValues]]:
        """By layer: the keys of each chain's recent memories and of the pointers that it sees."""
        layers = range(self.memory_attention.depth)
        parts: list[list[KeyValues]] = [[] for _ in layers]
        recent = [chain.recent(self.network.recent) for chain in chains]
        if recent[0]:
            memories = torch.stack([torch.stack([frame.memory for frame in frames]) for frames in recent])
            distances = [
                [chain.coordinate - frame.coordinate for frame in frames]
                for chain, frames in zip(chains, recent, strict=True)
            ]
            slots = self.network.memory_slot(torch.tensor(distances, device=self.network.device))
            positions = self.network.memory_positions + slots[:, :, None]
            values = self.memory_attention.values(memories)
            for layer in layers:
                keys = self.memory_attention.memory_keys(layer, memories, positions)
                parts[layer].append(KeyValues(keys.flatten(1, 2), values[layer].flatten(1, 2)))
        if self.network.model.use_obj_ptrs_in_encoder:
            pointers, distances, valid = self._pointers(chains, template, pointer_limit)
            tokens = self.network.pointer_tokens(pointers)
            positions = self.network.pointer_positions(distances, pointer_limit)
            valid = valid.repeat_interleave(self.network.tokens_per_pointer, dim=1)
            values = self.memory_attention.values(tokens)
            for layer in layers:
                keys = self.memory_attention.pointer_keys(layer, tokens, positions)
                parts[layer].append(KeyValues(keys, values[layer], valid))
        return parts

    def _pointers(
        self, chains: Sequence[HalfChain], template: LabelledTemplate, pointer_limit: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pointers (B, P, C) that the chains may see, their distances (B, P) in frames, and which of them they do see.

        First come those of the prompted slices, all of them, then each chain's own.
        """
        own = [chain.recent(pointer_limit - 1) for chain in chains]
        prompted = len(template.prompted)
        count = prompted + max(len(frames) for frames in own)
        distances = torch.zeros(len(chains), count)
        valid = torch.zeros(len(chains), count, dtype=torch.bool)
        pointers = template.pointers.new_zeros(len(chains), count, template.pointers.shape[1])
        pointers[:, :prompted] = template.pointers
        for row, (chain, frames) in enumerate(zip(chains, own, strict=True)):
            behind = [template.coordinate(index, chain.direction) for index in template.prompted]
            behind += [frame.coordinate for frame in frames]
            distances[row, : len(behind)] = chain.coordinate - torch.tensor(behind, dtype=torch.float32)
            valid[row, : len(behind)] = True
            if frames:
                pointers[row, prompted : len(behind)] = torch.stack([frame.pointer for frame in frames])
        if self.network.model.only_obj_ptrs_in_the_past_for_eval:
            valid &= distances >= 0
        return pointers, distances.to(self.network.device), valid.to(self.network.device)


def _take(tensors: Sequence[torch.Tensor], rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """The given rows of each tensor; without copying where all are the same."""
    if len(set(rows)) == 1:
        row = rows[0]
        return tuple(tensor[row : row + 1].expand(len(rows), *tensor.shape[1:]) for tensor in tensors)
    index = torch.tensor(rows, device=tensors[0].device)
    return tuple(tensor.index_select(0, index) for tensor in tensors)

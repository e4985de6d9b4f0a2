"""The engine's situation for training: labelled slices as conditioning memories, then a chain of unlabelled slices.

Two schedules on the same weights. *Passes* decode all slices of the chain at once, the previous slices' memories being
noised true masks first and then the pass before's own predictions (Jacobi iteration: after n passes the first n slices
are exactly those of the chain). *Chain* decodes slice by slice on the model's own memories.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe

from ..tffs.place import place_prompts
from .answers import spoiled
from .attention import attend
from .samples import Batch

__all__ = ["Decoded", "Memories", "Teacher", "noised"]

MEMORIES = 6  # previous slices in memory (num_maskmem - 1)
POINTERS = 15  # previous slices' object pointers (max_obj_ptrs_in_encoder - 1)
LABELLED_POINTERS = 4  # labelled slices whose pointers are used in training (all of them in the engine)
_TAIL = 2  # unprompted last slices of the labelled volume that are remembered as previous slices


@dataclass
class Decoded:
    """Predictions of (G, L) slices: ``logits`` (G, L, s, s) at a quarter of the frame, ``score`` and ``pointer``.

    ``pointed_at``: of each layer of memory attention, the share of the target in the labelled tokens that each token of
    the slice attends to, (G, L, HW, 1).
    """

    logits: torch.Tensor
    score: torch.Tensor
    pointer: torch.Tensor
    pointed_at: list[torch.Tensor] = field(default_factory=list)


@dataclass
class Memories:
    """Memory maps (G, n, HW, m), pointers (G, n, C) and which of them exist, bool (G, n)."""

    maps: torch.Tensor
    pointers: torch.Tensor
    exist: torch.Tensor


def noised(masks: torch.Tensor) -> torch.Tensor:
    """Imperfect copies of masks: edges moved by coarse noise, bool (n, S, S) -> float32 (n, S, S) of 0 and 1."""
    soft = F.avg_pool2d(masks[:, None].float(), 7, 1, 3)
    coarse = torch.randn(len(masks), 1, 8, 8, device=masks.device) * 0.3
    edge = F.interpolate(coarse, masks.shape[-2:], mode="bilinear", align_corners=False)
    shift = 0.25 * torch.randn(len(masks), 1, 1, 1, device=masks.device)
    return (soft + edge * (soft > 0) + shift * (soft > 0) > 0.5)[:, 0].float()


class Teacher:
    """Runs a SAM2 the way the engine does, on whole batches, with gradients.

    Args:
        model: Stock ``SAM2Base`` with single-mask tracking.
        unplaced: Share of the groups that are not told where the target lies in the labelled subjects.
        answered: Share of the groups that are told an earlier answer instead.
    """

    def __init__(self, model: SAM2Base, *, unplaced: float = 0.0, answered: float = 0.0) -> None:
        self.model = model
        self.unplaced, self.answered = unplaced, answered
        self.side = model.image_size // 16

    # -- the parts of the stock model, batched ---------------------------------------------------------------------

    def encode(self, batch: Batch) -> None:
        """Encode all frames of a batch and keep them, each repeated for its targets (G = B x T groups)."""
        model = self.model
        b, n = batch.frames.shape[:2]
        targets = batch.masks.shape[1]
        features = model.forward_image(batch.frames.flatten(0, 1))
        maps = features["backbone_fpn"]
        self.position = features["vision_pos_enc"][-1][0].flatten(1).T  # (HW, C)

        def grouped(x: torch.Tensor) -> torch.Tensor:
            x = x.view(b, 1, n, *x.shape[1:]).expand(-1, targets, *(-1,) * x.dim())
            return x.flatten(0, 1)

        self.features = maps[-1].unflatten(0, (b, n))
        self.fine, self.middle, self.top = (grouped(x) for x in maps)
        self.masks = batch.masks.flatten(0, 1)
        place = batch.place.flatten(0, 1)
        self.place = place_prompts(place.flatten(0, 1), 4 * self.side).unflatten(0, place.shape[:2])
        self.placed = torch.rand(len(self.masks), device=place.device) >= self.unplaced
        self.distance = batch.distance[:, None].expand(-1, targets, -1).flatten(0, 1)
        self.labelled = batch.labelled

    def heads(
        self,
        features: torch.Tensor,
        slices: slice | torch.Tensor,
        prompts: torch.Tensor,
        prompted: torch.Tensor | None = None,
    ) -> Decoded:
        """The prompt encoder, mask decoder and pointer projection on features (G, L, C, h, w).

        ``prompts`` (G x L, 1, 4h, 4w); ``prompted`` bool (G,): the other groups are decoded without.
        """
        model = self.model
        groups, length = features.shape[:2]
        fine, middle = (x[:, slices].flatten(0, 1) for x in (self.fine, self.middle))
        count = groups * length
        points = torch.zeros(count, 1, 2, device=features.device)
        nothing = -torch.ones(count, 1, dtype=torch.int32, device=features.device)
        sparse, dense = model.sam_prompt_encoder(points=(points, nothing), boxes=None, masks=prompts)
        if prompted is not None:
            none = model.sam_prompt_encoder.no_mask_embed.weight[..., None, None]
            dense = torch.where(prompted.repeat_interleave(length)[:, None, None, None], dense, none)
        logits, _, tokens, score = model.sam_mask_decoder(
            image_embeddings=features.flatten(0, 1),
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=[fine, middle],
        )
        appears = (score > 0).float()
        pointer = appears * model.obj_ptr_proj(tokens[:, 0]) + (1 - appears) * model.no_obj_ptr
        shape = (groups, length)
        return Decoded(logits[:, 0].unflatten(0, shape), score[:, 0].unflatten(0, shape), pointer.unflatten(0, shape))

    def remember(
        self, slices: slice, masks: torch.Tensor, appears: torch.Tensor, among: torch.Tensor | slice = slice(None)
    ) -> torch.Tensor:
        """Memory maps (G, L, HW, m) from features and mask probabilities (G, L, S, S), appears bool (G, L).

        ``among`` picks the groups that the masks are of (all of them by default).
        """
        model = self.model
        groups, length = masks.shape[:2]
        scaled = masks.flatten(0, 1)[:, None] * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        features = self.top[among, slices].flatten(0, 1)
        maps = model.memory_encoder(features, scaled, skip_mask_sigmoid=True)
        self.memory_position = maps["vision_pos_enc"][0][0].flatten(1).T
        absent = (~appears).float().flatten()[:, None, None, None]
        maps = maps["vision_features"] + absent * model.no_obj_embed_spatial[..., None, None]
        return maps.flatten(2).mT.unflatten(0, (groups, length))

    def remember_labelled(self) -> tuple[Memories, Decoded]:
        """Memories of the labelled slices; those without the target are its volume's unprompted slices."""
        slices = slice(0, self.labelled)
        masks = self.masks[:, slices]
        appears = masks.flatten(2).any(2)
        # As the predictor keeps them: shrunk to a quarter, grown again and binarised.
        quarter = self.model.image_size // 4
        kept = F.interpolate(masks.float(), (quarter, quarter), mode="bilinear", align_corners=False, antialias=True)
        kept = F.interpolate(kept, masks.shape[-2:], mode="bilinear", align_corners=False) > 0.5
        maps = self.remember(slices, kept.float(), appears)
        # Pointers of a few labelled slices are enough to learn from (each costs a decoding).
        self.pointed = torch.randperm(masks.shape[1])[:LABELLED_POINTERS].sort().values.to(masks.device)
        self.occupied = F.adaptive_avg_pool2d(masks.float(), self.side).flatten(1)[..., None]  # (G, R x HW, 1)
        prompts = self.model.mask_downsample(masks[:, self.pointed].flatten(0, 1)[:, None].float())
        size = self.model.sam_prompt_encoder.mask_input_size
        if prompts.shape[-2:] != size:
            prompts = F.interpolate(prompts, size, mode="bilinear", align_corners=False, antialias=True)
        decoded = self.heads(self.top[:, self.pointed], self.pointed, prompts)
        seen = appears[:, self.pointed, None].float()
        absent = self.model.no_obj_ptr.expand(*masks.shape[:2], -1)
        pointers = absent.index_copy(1, self.pointed, seen * decoded.pointer + (1 - seen) * self.model.no_obj_ptr)
        self.points = torch.zeros_like(appears).index_fill_(1, self.pointed, True) & appears
        # Attention needs something to look at: a group without any prompt (which the engine never runs) sees slice 0.
        self.prompted = appears.any(1)
        exist = appears.clone()
        exist[:, 0] |= ~self.prompted
        return Memories(maps, pointers, exist), decoded

    @torch.no_grad()
    def tell_answers(self, labelled: Memories) -> None:
        """Tell some groups an earlier answer in place of where the target lies in the labelled subjects.

        Two thirds get what the network itself finds in each slice alone, mixed with the place it was told then; the
        others the truth with mistakes, since answers from other planes know what these slices do not show.
        """
        chosen = torch.rand(len(self.placed), device=self.placed.device) < self.answered
        if not chosen.any():
            return
        chain = self.masks[:, self.labelled :]
        none = Memories(labelled.maps[:, :0], labelled.pointers[:, :0], labelled.exist[:, :0])
        alone = self.track(range(chain.shape[1]), labelled, none, [[]] * chain.shape[1])
        own = alone.logits.float().sigmoid() * (alone.score > 0)[..., None, None]
        weight = 0.5 + 0.5 * torch.rand(len(own), 1, 1, 1, device=own.device)
        own = weight * own + (1 - weight) * self.place[:, :, 0].sigmoid()
        true = torch.rand(len(own), 1, 1, 1, device=own.device) < 1 / 3
        answers = torch.where(true, spoiled(chain, own.shape[-1]), own)
        told = place_prompts(answers.flatten(0, 1), own.shape[-1]).view_as(self.place)
        self.place = torch.where(chosen[:, None, None, None, None], told, self.place)
        self.placed = self.placed | chosen

    # -- tracking --------------------------------------------------------------------------------------------------

    def track(self, slices: range, labelled: Memories, previous: Memories, reach: list[list[int]]) -> Decoded:
        """Decode slices of the chain from labelled memories and the chain's previous ones.

        Args:
            slices: Chain slices to decode, counted from the chain's start.
            labelled: Memories of the labelled slices.
            previous: Memories of chain slices 0..n-1 (``exist`` false: hidden).
            reach: For each decoded slice the chain slices before it, nearest first.
        """
        model, device = self.model, labelled.maps.device
        groups, count, tokens, width = labelled.maps.shape
        length = len(slices)
        slots = model.maskmem_tpos_enc[:, 0, 0]  # (7, m): slot r - 1 is distance r, the last one conditioning
        position = self.memory_position

        shared = labelled.maps.flatten(1, 2)
        shared_position = (position + slots[-1]).repeat(count, 1).expand(groups, -1, -1)
        visible_shared = labelled.exist.repeat_interleave(tokens, 1)[:, None].expand(-1, length, -1)

        # Candidates for "previous": the chain's own slices, then the labelled volume's last empty slices.
        empty = ~labelled.exist & (torch.arange(count, device=device) >= count - _TAIL)
        maps = torch.cat([previous.maps, labelled.maps[:, -_TAIL:]], 1)
        pointers = torch.cat([previous.pointers, labelled.pointers[:, -_TAIL:]], 1)
        exist = torch.cat([previous.exist, empty[:, -_TAIL:]], 1)
        first_tail = previous.maps.shape[1]
        tail = range(first_tail + min(_TAIL, count) - 1, first_tail - 1, -1)
        local, place, seen, pointer_tokens, pointer_place, pointer_seen = [], [], [], [], [], []
        for index, before in zip(slices, reach, strict=True):
            sources = [(index - j, j) for j in before] + [(index + 1 + n, j) for n, j in enumerate(tail)]
            by_distance = dict(sources)
            chosen = [by_distance.get(r) for r in range(1, MEMORIES + 1)]
            pick = torch.tensor([0 if j is None else j for j in chosen], device=device)
            there = torch.tensor([j is not None for j in chosen], device=device)
            local.append(maps[:, pick].flatten(1, 2))
            place.append((position + slots[:MEMORIES, None]).flatten(0, 1))
            seen.append((exist[:, pick] & there).repeat_interleave(tokens, 1))
            near = [(r, j) for r, j in sources if r <= POINTERS]
            near += [(0, 0)] * (POINTERS - len(near))
            pick = torch.tensor([j for _, j in near], device=device)
            there = torch.tensor([r > 0 for r, _ in near], device=device)
            distance = torch.tensor([float(r) for r, _ in near], device=device).expand(groups, -1)
            pointer_tokens.append(torch.cat([labelled.pointers, pointers[:, pick]], 1))
            pointer_place.append(torch.cat([self.distance + index, distance], 1))
            pointer_seen.append(torch.cat([self.points, exist[:, pick] & there], 1))
        split = model.hidden_dim // width
        pointer = torch.stack(pointer_tokens, 1)  # (G, L, p, C)
        time = get_1d_sine_pe(torch.stack(pointer_place, 1).flatten() / POINTERS, dim=model.hidden_dim)
        time = model.obj_ptr_tpos_proj(time).view(groups, length, -1, width).repeat_interleave(split, 2)
        pointer = pointer.unflatten(-1, (split, width)).flatten(2, 3)
        place = torch.stack(place)[None].expand(groups, -1, -1, -1)
        visible_pointer = torch.stack(pointer_seen, 1).repeat_interleave(split, 2)
        start = self.labelled + slices.start
        chain = slice(start, start + length)
        top = self.top[:, chain].flatten(3).mT  # (G, L, HW, C)
        fused, attended = attend(
            model.memory_attention,
            top,
            self.position,
            shared,
            shared_position,
            torch.cat([torch.stack(local, 1), pointer], 2),
            torch.cat([place, time], 2),
            pointer.shape[2],
            torch.cat([visible_shared, torch.stack(seen, 1), visible_pointer], 2),
        )
        place = self.place[:, slices.start : slices.stop].flatten(0, 1)
        decoded = self.heads(fused.mT.unflatten(-1, (self.side, self.side)), chain, place, self.placed)
        targets = self.occupied[:, None]
        decoded.pointed_at = [w @ targets / (w.sum(-1, keepdim=True) + 1e-6) for w in attended]
        return decoded

    def memories_of(self, decoded: Decoded, start: int) -> Memories:
        """The chain's own memories of decoded slices, as the predictor makes them (no gradient through the mask)."""
        length = decoded.logits.shape[1]
        appears = decoded.score > 0
        size = self.masks.shape[-2:]
        logits = F.interpolate(decoded.logits.detach(), size, mode="bilinear", align_corners=False)
        masks = logits.sigmoid() * appears[..., None, None]
        chain = slice(self.labelled + start, self.labelled + start + length)
        return Memories(self.remember(chain, masks, appears), decoded.pointer, torch.ones_like(appears))

    def _true_memories(self, labelled: Memories, taught: torch.Tensor) -> Memories:
        """Memories of noised true masks for the ``taught`` groups, hidden ones for the others."""
        chain = slice(self.labelled, None)
        masks = self.masks[taught, chain]
        rough = noised(masks.flatten(0, 1)).view(masks.shape)
        groups, length = self.masks.shape[0], masks.shape[1]
        maps = labelled.maps.new_zeros(groups, length, *labelled.maps.shape[2:])
        if len(taught):
            maps = maps.index_copy(0, taught, self.remember(chain, rough, rough.flatten(2).any(2), taught))
        exist = torch.zeros(groups, length, dtype=torch.bool, device=maps.device)
        exist[taught] = True
        return Memories(maps, self.model.no_obj_ptr.expand(groups, length, -1).to(labelled.pointers.dtype), exist)

    def passes(
        self, batch: Batch, count: int = 2, *, drop: float = 0.1, taught: float = 0.33
    ) -> tuple[list[Decoded], Decoded]:
        """Decode the whole chain ``count`` times; returns each pass and the labelled slices' own decoding.

        Args:
            drop: Chance that a previous memory is hidden.
            taught: Share of the groups whose first pass sees noised true masks of the previous slices; the others see
                the labelled slices only.
        """
        self.encode(batch)
        labelled, prompted = self.remember_labelled()
        self.tell_answers(labelled)
        groups, length = self.masks.shape[0], self.masks.shape[1] - self.labelled
        device = self.masks.device
        everything = range(length)
        reach = [list(range(i - 1, -1, -1)) for i in everything]
        memories = self._true_memories(labelled, torch.randperm(groups, device=device)[: round(taught * groups)])
        results = []
        for turn in range(count):
            memories.exist = memories.exist & (torch.rand(groups, length, device=device) >= drop)
            decoded = self.track(everything, labelled, memories, reach)
            results.append(decoded)
            if turn + 1 < count:
                memories = self.memories_of(decoded, 0)
        return results, prompted

    def chain(self, batch: Batch, *, flip: float = 0.0) -> tuple[Decoded, Decoded]:
        """Decode slice by slice on the model's own memories; ``flip``: chance of a wrong memory (of an empty mask)."""
        self.encode(batch)
        labelled, prompted = self.remember_labelled()
        self.tell_answers(labelled)
        length = self.masks.shape[1] - self.labelled
        groups = self.masks.shape[0]
        m = labelled.maps
        previous = Memories(m[:, :0], labelled.pointers[:, :0], labelled.exist[:, :0])
        steps: list[Decoded] = []
        for index in range(length):
            decoded = self.track(range(index, index + 1), labelled, previous, [list(range(index - 1, -1, -1))])
            steps.append(decoded)
            if index + 1 < length:
                kept = decoded
                if flip:
                    wrong = torch.rand(groups, 1, device=m.device) < flip
                    none = self.model.no_obj_ptr.expand_as(decoded.pointer)
                    kept = Decoded(
                        decoded.logits,
                        torch.where(wrong, -1.0, decoded.score),
                        torch.where(wrong[..., None], none, decoded.pointer),
                    )
                new = self.memories_of(kept, index)
                previous = Memories(
                    torch.cat([previous.maps, new.maps], 1),
                    torch.cat([previous.pointers, new.pointers], 1),
                    torch.cat([previous.exist, new.exist], 1),
                )
        return Decoded(
            *(torch.cat([getattr(s, k) for s in steps], 1) for k in ("logits", "score", "pointer"))
        ), prompted

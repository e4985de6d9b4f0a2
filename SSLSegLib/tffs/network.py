"""The parts of a SAM2 that tracking by mask prompts uses, each callable by itself and for a batch.

The semantics are those of ``sam2.sam2_video_predictor.SAM2VideoPredictor`` with one object prompted by masks only.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_1d_sine_pe

from ..errors import WeightsError

__all__ = ["Decoded", "Levels", "TrackingNetwork"]

# Feature levels of n slices, finest first; the last one, (n, C, h, w), is what memory attention works on.
Levels = tuple[torch.Tensor, ...]


class Decoded(NamedTuple):
    """What the mask decoder says about B frames.

    ``logits`` (B, 1, 4h, 4w); ``full_size`` the same at the frame's size; ``pointers`` (B, C); ``scores`` (B, 1),
    above 0 where the object is present.
    """

    logits: torch.Tensor
    full_size: torch.Tensor
    pointers: torch.Tensor
    scores: torch.Tensor


class TrackingNetwork:
    """A SAM2 model seen as the functions that tracking needs.

    Args:
        model: A ``SAM2Base`` in eval mode, already on its device.
        round_memories: Store memories rounded to bfloat16, as the stock predictor does.

    Raises:
        WeightsError: The model is configured in a way that the stock mask-prompted tracking here does not cover.
    """

    def __init__(self, model: torch.nn.Module, *, round_memories: bool = True) -> None:
        _check(model)
        self.model = model
        self.device = next(model.parameters()).device
        self.image_size: int = model.image_size
        self.side: int = model.image_size // model.backbone_stride
        self.recent: int = model.num_maskmem - 1
        self.round_memories = round_memories
        with torch.inference_mode():
            top = torch.zeros(1, model.hidden_dim, self.side, self.side, device=self.device)
            memory = torch.zeros(1, model.mem_dim, self.side, self.side, device=self.device)
            # (N, C) and (N, M): position encodings of the top level and of memories.
            self.top_positions = model.image_encoder.neck.position_encoding(top)[0].flatten(1).T.contiguous()
            self.memory_positions = model.memory_encoder.position_encoding(memory)[0].flatten(1).T.contiguous()

    def encode(self, frames: torch.Tensor) -> Levels:
        """Image features of frames (n, 3, S, S)."""
        encoded = self.model.forward_image(frames.to(self.device, torch.float32))
        return tuple(encoded["backbone_fpn"][-self.model.num_feature_levels :])

    def memory_slot(self, distance: int | torch.Tensor) -> torch.Tensor:
        """Temporal encoding (..., M) of a recent memory at a distance in frames; 0 asks for a conditioning memory's."""
        slots = self.model.maskmem_tpos_enc[:, 0, 0]
        return slots[distance - 1]  # -1, the last slot, is the conditioning one

    def pointer_tokens(self, pointers: torch.Tensor) -> torch.Tensor:
        """Pointers (B, P, C) split into tokens of the memory's width: (B, P * C / M, M)."""
        return pointers.reshape(pointers.shape[0], -1, self.model.mem_dim)

    @property
    def tokens_per_pointer(self) -> int:
        """C / M."""
        return self.model.hidden_dim // self.model.mem_dim

    def pointer_positions(self, distances: torch.Tensor, limit: int) -> torch.Tensor:
        """Temporal encoding (B, P * C / M, M) of pointers at distances (B, P) in frames.

        ``limit`` is the number of pointers in use, the smaller of the video's length and the model's maximum.
        """
        model = self.model
        if not model.add_tpos_enc_to_obj_ptrs:
            return torch.zeros(*distances.shape, model.mem_dim, device=self.device).repeat_interleave(
                self.tokens_per_pointer, dim=1
            )
        if not model.use_signed_tpos_enc_to_obj_ptrs:
            distances = distances.abs()
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        encoded = model.obj_ptr_tpos_proj(get_1d_sine_pe(distances / (limit - 1), dim=width))
        return encoded.repeat_interleave(self.tokens_per_pointer, dim=1)

    def prompt(self, levels: Levels, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Conditioning memories (n, N, M) and pointers (n, C) of slices prompted by masks.

        The mask is taken as the output; the memory is made from it after a trip through the decoder's resolution.

        Args:
            levels: Image features of the slices.
            masks: Binary, float32 (n, 1, S, S).
        """
        logits, _, _, _, _, pointers, scores = self.model._use_mask_as_output(levels[-1], list(levels[:-1]), masks)
        size = (self.image_size, self.image_size)
        full_size = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        memories = self._memorise(levels[-1], (full_size > 0).float(), scores)
        return memories, pointers

    @property
    def prompt_side(self) -> int:
        """Side in pixels of the rough masks that the prompt encoder takes."""
        return self.model.sam_prompt_encoder.mask_input_size[0]

    def decode(self, conditioned: torch.Tensor, high_resolution: Levels, rough: torch.Tensor | None = None) -> Decoded:
        """Masks of frames whose features (B, N, C) have been conditioned on memories.

        ``rough``: logits (B, 1, 4h, 4w) of what is known of the masks beforehand.
        """
        features = conditioned.transpose(1, 2).unflatten(2, (self.side, self.side))
        _, _, _, logits, full_size, pointers, scores = self.model._forward_sam_heads(
            backbone_features=features,
            mask_inputs=rough,
            high_res_features=list(high_resolution) or None,
            multimask_output=self.model._use_multimask(is_init_cond_frame=False, point_inputs=None),
        )
        return Decoded(logits, full_size, pointers, scores)

    def remember(self, top: torch.Tensor, decoded: Decoded) -> torch.Tensor:
        """Memories (B, N, M) of tracked frames."""
        return self._memorise(top, torch.sigmoid(decoded.full_size), decoded.scores)

    def _memorise(self, top: torch.Tensor, masks: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        model = self.model
        scaled = masks * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        memories = model.memory_encoder(top, scaled, skip_mask_sigmoid=True)["vision_features"]
        if model.no_obj_embed_spatial is not None:
            absent = (scores <= 0).to(memories.dtype)
            memories = memories + absent[..., None, None] * model.no_obj_embed_spatial[..., None, None]
        memories = memories.flatten(2).transpose(1, 2).contiguous()
        return memories.bfloat16() if self.round_memories else memories.float()


def _check(model: torch.nn.Module) -> None:
    needed = {
        "use_mask_input_as_output_without_sam": True,
        "max_cond_frames_in_attn": -1,
        "memory_temporal_stride_for_eval": 1,
    }
    for name, value in needed.items():
        if getattr(model, name) != value:
            raise WeightsError(
                f"TFFS needs a SAM2 configured with {name} = {value}, this one has {getattr(model, name)}.",
                remedy="Use SAM 2.1 or MedSAM2 weights with their own configuration.",
            )
    if model.num_maskmem < 2:
        raise WeightsError("TFFS needs a SAM2 with memories (num_maskmem of at least 2).")

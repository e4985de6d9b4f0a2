"""SAM2's side of VESSA: the template through the memory, a prompt from outside, and the mask decoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ABSENT", "Decoded", "Levels", "Memory", "TemplateSegmenter"]

Levels = tuple[torch.Tensor, ...]
"""Image features, finest first; the last, (B, C, h, w), is what the memory attention works on."""

ABSENT = -1024.0
"""Mask logit where the object is said to be absent (SAM2's NO_OBJ_SCORE)."""

_FRAMES = 16
"""Length of the video that the two images pretend to be: SAM2 scales the places of its object pointers by it, and was
trained with at least so many."""


class Memory(NamedTuple):
    """What SAM2 remembers of templates: ``features`` (B, M, h, w) and object ``pointers`` (B, C)."""

    features: torch.Tensor
    pointers: torch.Tensor


class Decoded(NamedTuple):
    """Mask ``logits`` (B, 1, 4h, 4w) and ``presence`` (B, 1), above 0 where the object is said to be there."""

    logits: torch.Tensor
    presence: torch.Tensor


class TemplateSegmenter(nn.Module):
    """Template and target as a video of two frames: the template with its mask first, the target second.

    Args:
        sam2: A ``SAM2Base``.
        single_mask: See :class:`~SSLSegLib.vessa.configuration.VessaConfiguration`.
    """

    def __init__(self, sam2: nn.Module, *, single_mask: bool = True) -> None:
        super().__init__()
        self.sam2, self.single_mask = sam2, single_mask

    @property
    def side(self) -> int:
        """S, the side of the frames."""
        return self.sam2.image_size

    @property
    def width(self) -> int:
        """C, the width of prompts and of the top feature level."""
        return self.sam2.hidden_dim

    @torch.no_grad()
    def encode(self, frames: torch.Tensor) -> Levels:
        """f_img = E_vision(x_img): image features of frames (B, 3, S, S). The encoder is frozen always."""
        encoded = self.sam2.forward_image(frames)
        return tuple(encoded["backbone_fpn"][-self.sam2.num_feature_levels :])

    def remember(self, levels: Levels, masks: torch.Tensor) -> Memory:
        """f_memory = E_memory(x_temp, m_temp).

        As for a conditioning frame of the stock predictor: the mask is the frame's output, its object pointer comes
        from the decoder with the mask as prompt, and the memory is made from the mask after a trip through the
        decoder's resolution.

        Args:
            levels: Of the templates.
            masks: Binary, float32 (B, 1, S, S).
        """
        sam2 = self.sam2
        output = sam2._use_mask_as_output(levels[-1], list(levels[:-1]), masks)
        pointers, presence = output[5], output[6]
        remembered = (self.full_size(output[0]) > 0).to(masks.dtype)
        scaled = remembered * sam2.sigmoid_scale_for_mem_enc + sam2.sigmoid_bias_for_mem_enc
        features = sam2.memory_encoder(levels[-1], scaled, skip_mask_sigmoid=True)["vision_features"]
        if sam2.no_obj_embed_spatial is not None:
            absent = (presence <= 0).to(features.dtype)
            features = features + absent[..., None, None] * sam2.no_obj_embed_spatial[..., None, None]
        return Memory(features, pointers)

    def attend(self, levels: Levels, memory: Memory | None) -> torch.Tensor:
        """q = Attention(f_img, f_memory), (B, C, h, w); without a memory, f_img with SAM2's "no memory" embedding."""
        sam2, top = self.sam2, levels[-1]
        if memory is None:
            return top + sam2.no_mem_embed.reshape(1, -1, 1, 1)
        tokens = top.flatten(2).permute(2, 0, 1)
        positions = sam2.image_encoder.neck.position_encoding(top).flatten(2).permute(2, 0, 1)
        template = {
            "maskmem_features": memory.features,
            "maskmem_pos_enc": [sam2.memory_encoder.position_encoding(memory.features)],
            "obj_ptr": memory.pointers,
        }
        return sam2._prepare_memory_conditioned_features(
            frame_idx=1,
            is_init_cond_frame=False,
            current_vision_feats=[tokens],
            current_vision_pos_embeds=[positions],
            feat_sizes=[tuple(top.shape[-2:])],
            output_dict={"cond_frame_outputs": {0: template}, "non_cond_frame_outputs": {}},
            num_frames=_FRAMES,
        )

    def decode(
        self,
        attended: torch.Tensor,
        finer: Levels,
        prompt: torch.Tensor | None = None,
        *,
        points: dict[str, torch.Tensor] | None = None,
        masks: torch.Tensor | None = None,
        gate: bool = True,
    ) -> Decoded:
        """m = D_mask(p, q), where p joins h_seg to SAM2's own prompts.

        Args:
            attended: q, (B, C, h, w).
            finer: The other feature levels of the target.
            prompt: h_seg, (B, C), joined to the sparse prompt tokens; None without the language model.
            points: ``point_coords`` (B, P, 2) in frame pixels and ``point_labels`` (B, P); boxes are two corners
                labelled 2 and 3, padding is labelled -1.
            masks: Logits (B, 1, 4h, 4w) as a dense prompt.
            gate: Put logits to :data:`ABSENT` where the object is said to be absent. Off in training, where it would
                stop the gradient.
        """
        sam2, count = self.sam2, len(attended)
        if points is None:  # SAM2's way to say that there are none
            coordinates = attended.new_zeros(count, 1, 2)
            labels = -torch.ones(count, 1, dtype=torch.int32, device=attended.device)
        else:
            coordinates, labels = points["point_coords"], points["point_labels"]
        sparse, dense = sam2.sam_prompt_encoder(points=(coordinates, labels), boxes=None, masks=masks)
        if prompt is not None:
            sparse = torch.cat([sparse, prompt[:, None].to(sparse.dtype)], dim=1)
        heads = self._masks(
            points,
            image_embeddings=attended,
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(finer) or None,
        )
        logits, presence = heads
        logits = logits.float()
        if gate:
            logits = torch.where(presence[:, :, None, None] > 0, logits, ABSENT)
        return Decoded(logits, presence.float())

    def _masks(self, points: dict[str, torch.Tensor] | None, **inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, 1, 4h, 4w) and presence (B, 1)."""
        decoder = self.sam2.sam_mask_decoder
        if self.single_mask:
            masks, _, _, presence = decoder.predict_masks(**inputs)
            return masks[:, :1], presence
        several = self.sam2._use_multimask(False, points)  # a box leaves nothing to choose from
        masks, quality, _, presence = decoder(multimask_output=several, **inputs)
        best = quality.argmax(dim=1)
        return masks[torch.arange(len(masks), device=masks.device), best][:, None], presence

    def trained_parts(self) -> Sequence[nn.Module]:
        """What stage 1 trains of SAM2: the mask decoder (as LISA and Sa2VA), memory encoder and memory attention."""
        sam2 = self.sam2
        return [sam2.sam_mask_decoder, sam2.memory_encoder, sam2.memory_attention, sam2.obj_ptr_proj]

    def full_size(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, 4h, 4w) at the frame's size, (B, 1, S, S)."""
        return F.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False)

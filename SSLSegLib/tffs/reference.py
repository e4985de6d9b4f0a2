"""The same job on the stock SAM2 video predictor, frame by frame and slow: what the engine is measured against.

Used by tests and benchmarks only. The procedure is that of the official code (paper 1's repository): a mask prompt on
every labelled slice whose resized mask is not empty, a forward pass from the first prompted frame, then a fresh state
and a backward pass from the last one.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from sam2 import sam2_video_predictor

__all__ = ["mild_weights", "stock_run", "stock_state", "unrounded_memories"]


def stock_state(predictor: torch.nn.Module, frames: torch.Tensor, in_plane: tuple[int, int]) -> dict:
    """A fresh inference state on ready frames (n, 3, S, S): what ``init_state`` makes, without its video loader."""
    device = predictor.device
    return {
        "images": frames,
        "num_frames": len(frames),
        "offload_video_to_cpu": False,
        "offload_state_to_cpu": False,
        "video_height": in_plane[0],
        "video_width": in_plane[1],
        "device": device,
        "storage_device": device,
        "point_inputs_per_obj": {},
        "mask_inputs_per_obj": {},
        "cached_features": {},
        "constants": {},
        "obj_id_to_idx": OrderedDict(),
        "obj_idx_to_id": OrderedDict(),
        "obj_ids": [],
        "output_dict_per_obj": {},
        "temp_output_dict_per_obj": {},
        "frames_tracked_per_obj": {},
    }


@torch.inference_mode()
def stock_run(
    predictor: torch.nn.Module,
    frames: torch.Tensor,
    labelled_frames: torch.Tensor,
    mask: torch.Tensor,
    position: int,
    in_plane: tuple[int, int],
    rough: torch.Tensor | None = None,
) -> torch.Tensor:
    """Probabilities of one insertion by the stock predictor.

    Args:
        predictor: A ``SAM2VideoPredictor``.
        frames: Unlabelled volume, (n, 3, S, S).
        labelled_frames: Labelled volume, (L, 3, S, S).
        mask: bool (L, J, I).
        position: The labelled volume goes before this slice.
        in_plane: (rows, columns) of the unlabelled volume.
        rough: Logits (n + L, 1, 4h, 4w): rough masks of the video's frames, given to those that are not prompted as
            stock refinement gives the mask of an earlier click.

    Returns:
        float32 (n, rows, columns).
    """
    if rough is not None:
        with _refining(predictor, rough):
            return stock_run(predictor, frames, labelled_frames, mask, position, in_plane)
    video = torch.cat([frames[:position], labelled_frames, frames[position:]])
    masks = F.interpolate(mask[:, None].float(), size=in_plane, mode="nearest")[:, 0] > 0
    prompted = [index for index in range(len(masks)) if masks[index].any()]
    logits: dict[int, list[torch.Tensor]] = {}
    for reverse in (False, True):
        state = stock_state(predictor, video, in_plane)
        for index in prompted:
            predictor.add_new_mask(state, frame_idx=position + index, obj_id=1, mask=masks[index])
        start = position + (prompted[-1] if reverse else prompted[0])
        for frame, _, frame_logits in predictor.propagate_in_video(state, start_frame_idx=start, reverse=reverse):
            logits.setdefault(frame, []).append(frame_logits[0, 0].float())
    wanted = [frame if frame < position else frame + len(mask) for frame in range(len(frames))]
    return torch.stack([torch.sigmoid(torch.stack(logits[frame]).mean(dim=0)) for frame in wanted])


@contextmanager
def _refining(predictor: torch.nn.Module, rough: torch.Tensor) -> Iterator[None]:
    """Within, the predictor tracks every frame with a rough mask and a point that says nothing.

    Stock refinement binarises the memory of a frame with points; where the mask is only a hint it must not.
    """
    stock = predictor.track_step

    def track_step(*, frame_idx: int, mask_inputs: torch.Tensor | None, **others):
        if mask_inputs is not None:
            return stock(frame_idx=frame_idx, mask_inputs=mask_inputs, **others)
        nothing = {"point_coords": torch.zeros(1, 1, 2), "point_labels": -torch.ones(1, 1, dtype=torch.int32)}
        others |= {"point_inputs": nothing, "prev_sam_mask_logits": rough[frame_idx : frame_idx + 1]}
        with mock.patch.object(predictor, "binarize_mask_from_pts_for_mem_enc", False):
            return stock(frame_idx=frame_idx, mask_inputs=None, **others)

    with mock.patch.object(predictor, "track_step", track_step):
        yield


def mild_weights(model: torch.nn.Module, seed: int) -> None:
    """Random weights under which everything matters a little and nothing saturates.

    Freshly initialised, SAM2's memories hardly reach the masks: layer scales are 1e-6, temporal codes tiny and mask
    logits near zero. Here masks have logits of a few units and depend on the memories, and attention is not so peaked
    that rounding of the stored memories decides the result.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: torch.Tensor, spread: float) -> torch.Tensor:
        return torch.randn(parameter.shape, generator=generator) * spread

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(draw(parameter, fan_in**-0.5))
            elif name.endswith("bias"):
                parameter.copy_(draw(parameter, 0.05))
            elif name.endswith("gamma"):
                parameter.fill_(0.3)
        for buffer in model.buffers():
            buffer.copy_(draw(buffer, 1.0))
        for name, parameter in model.named_parameters():
            if any(code in name for code in ("tpos_enc", "pos_embed", "no_obj", "no_mem")):
                parameter.copy_(draw(parameter, 0.2))
        model.memory_encoder.mask_downsampler.encoder[-1].weight.mul_(2.0)
        decoder = model.sam_mask_decoder
        for network in decoder.output_hypernetworks_mlps:
            network.layers[-1].weight.mul_(2.0)
        if decoder.pred_obj_scores:
            score = decoder.pred_obj_score_head
            (score.layers[-1] if hasattr(score, "layers") else score).bias.fill_(2.0)


@contextmanager
def unrounded_memories() -> Iterator[None]:
    """Within, the stock predictor stores its memories in float32: it then differs from the engine by rounding only."""
    stock_torch = sam2_video_predictor.torch
    sam2_video_predictor.torch = _TorchWithoutBfloat16()
    try:
        yield
    finally:
        sam2_video_predictor.torch = stock_torch


class _TorchWithoutBfloat16:
    """The torch package as the predictor's module sees it, with float32 under the name of bfloat16."""

    bfloat16 = torch.float32

    def __getattr__(self, name: str):
        return getattr(torch, name)

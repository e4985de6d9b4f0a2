"""SAM2 from stock ``sam2`` classes: the package's own configuration files plus overrides, no Hydra state."""

from collections.abc import Mapping
from importlib import resources as package_files
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from ..errors import WeightsError

__all__ = ["Sam2Configuration", "build_sam2"]

# What sam2's own builder adds for prediction: an unstable single mask falls back to the best of three.
_STABLE_MULTIMASK = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
}


class Sam2Configuration(BaseModel):
    """A stock SAM2 configuration file and what differs from it.

    Args:
        base: Name of a file in ``sam2/configs/sam2.1`` without its ending, e.g. ``sam2.1_hiera_t``.
        image_size: Side of the square frame in pixels; the attention's feature size follows (side / 16).
        overrides: Nested values that replace the file's, e.g. ``{"image_encoder": {"trunk": {"embed_dim": 32}}}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = "sam2.1_hiera_t"
    image_size: int = 1024
    overrides: Mapping[str, Any] = {}


def _resolved(configuration: Sam2Configuration, *, predictor: bool):
    from omegaconf import OmegaConf

    text = package_files.files("sam2").joinpath(f"configs/sam2.1/{configuration.base}.yaml")
    if not text.is_file():
        raise WeightsError(
            f"The sam2 package has no configuration named {configuration.base!r}.",
            remedy="Use one of sam2.1_hiera_t, sam2.1_hiera_s, sam2.1_hiera_b+, sam2.1_hiera_l.",
        )
    model = OmegaConf.create(text.read_text()).model
    feature_side = configuration.image_size // 16
    attention = {"feat_sizes": [feature_side, feature_side]}
    model = OmegaConf.merge(
        model,
        {
            "image_size": configuration.image_size,
            "memory_attention": {"layer": {"self_attention": attention, "cross_attention": attention}},
        },
        _STABLE_MULTIMASK,
        {"binarize_mask_from_pts_for_mem_enc": True} if predictor else {},
        dict(configuration.overrides),
    )
    if predictor:
        model["_target_"] = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    return model


def build_sam2(configuration: Sam2Configuration, *, predictor: bool = False) -> torch.nn.Module:
    """Build a SAM2 with random weights, in eval mode, on the CPU.

    Args:
        configuration: Which SAM2.
        predictor: Build the stock ``SAM2VideoPredictor`` (the oracle of the tests) rather than ``SAM2Base``.

    Raises:
        WeightsError: The configuration's base does not exist.
    """
    from hydra.utils import instantiate

    return instantiate(_resolved(configuration, predictor=predictor), _recursive_=True).eval()

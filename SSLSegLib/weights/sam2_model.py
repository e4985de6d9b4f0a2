"""SAM2 from stock ``sam2`` classes: the package's own configuration files plus overrides, without Hydra's state."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources as package_files
from typing import Any
from unittest import mock

import torch

from ..errors import WeightsError
from .configuration import Sam2Configuration

__all__ = ["Sam2Configuration", "build_sam2", "place_sam2", "resolved_configuration"]

# What sam2's own builders add for prediction: an unstable single mask falls back to the best of three.
_STABLE_MULTIMASK = {
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
}
# What its video builder adds besides, but for fill_hole_area=8: hole filling needs sam2's compiled CUDA extension
# and without it only warns on every call.
_VIDEO = {"_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor", "binarize_mask_from_pts_for_mem_enc": True}


def resolved_configuration(configuration: Sam2Configuration, *, predictor: bool = False) -> Any:
    """The full model configuration (an OmegaConf ``DictConfig``) that :func:`build_sam2` instantiates.

    Raises:
        WeightsError: The base does not exist in the installed ``sam2``.
    """
    from omegaconf import OmegaConf

    stock = package_files.files("sam2").joinpath("configs", "sam2.1", f"{configuration.base}.yaml")
    if "/" in configuration.base or "\\" in configuration.base or not stock.is_file():
        raise WeightsError(
            f"The sam2 package has no configuration named {configuration.base!r}.",
            remedy="Use one of sam2.1_hiera_t, sam2.1_hiera_s, sam2.1_hiera_b+, sam2.1_hiera_l.",
        )
    features = [configuration.image_size // 16] * 2
    attention = {"feat_sizes": features}
    return OmegaConf.merge(
        OmegaConf.create(stock.read_text(encoding="utf-8")).model,
        {
            "image_size": configuration.image_size,
            "memory_attention": {"layer": {"self_attention": attention, "cross_attention": attention}},
        },
        _STABLE_MULTIMASK,
        _VIDEO if predictor else {},
        dict(configuration.overrides),
    )


def build_sam2(configuration: Sam2Configuration, *, predictor: bool = False) -> torch.nn.Module:
    """Build a SAM2 with random weights, in eval mode, on the CPU and without touching a GPU.

    Equal to what ``sam2.build_sam.build_sam2`` composes through Hydra's global state, which is neither read nor
    written here (importing ``sam2`` initialises it where the application has not).

    Args:
        configuration: Which SAM2.
        predictor: Build the stock ``SAM2VideoPredictor`` (the oracle of the tests) rather than ``SAM2Base``.

    Raises:
        WeightsError: The configuration's base does not exist, or its overrides do not fit the classes.
    """
    import sam2  # noqa: F401  its import sets Hydra's state up if nobody has; nothing below does
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    try:
        resolved = resolved_configuration(configuration, predictor=predictor)
        with _construction_without_gpu():
            model = instantiate(resolved, _recursive_=True)
    except (InstantiationException, OmegaConfBaseException) as problem:
        raise WeightsError(
            f"No SAM2 can be built from {configuration!r}: {problem}",
            remedy="Correct the overrides; their names and values are those of sam2's configuration files.",
        ) from problem
    return model.eval()


def place_sam2(model: torch.nn.Module, device: torch.device | str) -> torch.nn.Module:
    """Move a SAM2 to a device, with the tables that its modules keep outside their buffers. Returns the model."""
    model = model.to(device)
    for module in model.modules():
        if isinstance(getattr(module, "freqs_cis", None), torch.Tensor):  # RoPEAttention
            module.freqs_cis = module.freqs_cis.to(device)
        if isinstance(getattr(module, "cache", None), dict):  # PositionEmbeddingSine
            module.cache.clear()
    return model


_construction_lock = threading.Lock()


@contextmanager
def _construction_without_gpu() -> Iterator[None]:
    """sam2's RoPEAttention and PositionEmbeddingSine put tables on "cuda" as soon as a GPU exists, whatever device
    is asked for: on a full GPU, or in a forked child, a model for the CPU would fail. So there is none meanwhile."""
    with _construction_lock, mock.patch.object(torch.cuda, "is_available", return_value=False):
        yield

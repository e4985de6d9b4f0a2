"""A real, very small VESSA: stock SAM2 classes and a real Qwen3-VL, with random weights under which all matters."""

import numpy as np
import torch

from SSLSegLib.checkpoint.configuration import small_configuration
from SSLSegLib.tffs.reference import mild_weights
from SSLSegLib.vessa.configuration import VessaConfiguration, tiny_language
from SSLSegLib.vessa.model import Vessa, build_vessa
from SSLSegLib.weights.sam2_model import build_sam2

SAM2 = small_configuration(image_size=64, hidden=32, memory=16, trunk=16, stages=(1, 2, 1, 1))


def tiny_sam2(seed: int = 0) -> torch.nn.Module:
    model = build_sam2(SAM2)
    mild_weights(model, seed)
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(20.0)  # every object is said to be there
    return model


def tiny_vessa(*, language: bool = True, memory: bool = True, lora_rank: int = 4, seed: int = 0) -> Vessa:
    configuration = VessaConfiguration(
        sam2=SAM2, language=tiny_language(hidden=32, lora_rank=lora_rank) if language else None, memory=memory
    )
    return build_vessa(configuration, sam2=tiny_sam2(seed), seed=seed)


def pictures(count: int, *, seed: int = 0, size: tuple[int, int] = (40, 50)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]


def blobs(count: int, *, seed: int = 0, size: tuple[int, int] = (40, 50)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    centres = rng.uniform(0.3, 0.7, (count, 2)) * size
    return [(rows - r) ** 2 + (columns - c) ** 2 < 100 for r, c in centres]

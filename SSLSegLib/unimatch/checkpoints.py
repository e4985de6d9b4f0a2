"""Weights from elsewhere: official UniMatch v2 checkpoints, DINOv2 in Meta's and in Hugging Face's format.

Files are read with ``weights_only``: tensors and numbers, never code.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from SSLSegLib.errors import WeightsError
from SSLSegLib.files import sha256_of
from SSLSegLib.unimatch.network import SegmentationNetwork
from SSLSegLib.weights.reading import read_state_dict

__all__ = ["LoadedWeights", "load_weights", "translate"]

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoadedWeights:
    """What was read.

    Args:
        kind: ``unimatch-v2``, ``dinov2`` (Meta's file) or ``dinov2-transformers``.
        sha256: Of the file.
        decoder: Whether the decoder came with it.
        classifier: Whether the last layer did too (only where the number of classes is the same).
    """

    kind: str
    sha256: str
    decoder: bool
    classifier: bool


# What official names are called here; in this order, all that fit are applied.
_ENCODER = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^mask_token$", "embeddings.mask_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"^norm\.", "layernorm."),
)
_HUB = (
    (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)
_DECODER = (
    (r"^projects\.", "projections."),
    (r"^resize_layers\.", "resizing."),
    (r"^scratch\.layer(\d)_rn\.", lambda found: f"adapters.{int(found[1]) - 1}."),
    (r"^scratch\.refinenet(\d)\.", lambda found: f"fusions.{int(found[1]) - 1}."),
    (r"\.out_conv\.", ".out."),
    (r"\.resConfUnit1\.", ".side."),
    (r"\.resConfUnit2\.", ".main."),
    (r"\.conv1\.", ".first."),
    (r"\.conv2\.", ".second."),
    (r"^scratch\.output_conv\.0\.", "smooth."),
    (r"^scratch\.output_conv\.2\.", "classify."),
)
_CLASSIFIER = ("decoder.classify.weight", "decoder.classify.bias")


def load_weights(network: SegmentationNetwork, path: Path | str) -> LoadedWeights:
    """Fill a network from a file.

    Args:
        network: Its encoder is filled always; its decoder from UniMatch v2 checkpoints; the last layer of those only
            where they have as many classes.
        path: ``latest.pth`` or ``best.pth`` of the official UniMatch v2 (the student's weights), a
            ``dinov2_vit*14_pretrain.pth``, or a DINOv2 as on Hugging Face (``.safetensors``).

    Raises:
        WeightsError: The file is missing, damaged, holds code, or does not fit the network's size.
    """
    path = Path(path)
    # Official checkpoints keep their best score as a NumPy number beside the weights.
    with torch.serialization.safe_globals(_numpy_numbers()):
        kind, state = translate(read_state_dict(path))
    if kind is None:
        raise WeightsError(
            f"{path} is neither a UniMatch v2 checkpoint nor a DINOv2.",
            remedy="Use latest.pth of UniMatch v2, dinov2_vits14_pretrain.pth, or DINOv2 from Hugging Face.",
        )
    own = network.state_dict()
    if kind == "unimatch-v2" and state[_CLASSIFIER[0]].shape != own[_CLASSIFIER[0]].shape:
        state = {name: tensor for name, tensor in state.items() if name not in _CLASSIFIER}
    _check_fit(path, state, own, kind)
    network.load_state_dict(state, strict=False)
    return LoadedWeights(
        kind=kind,
        sha256=sha256_of(path),
        decoder=kind == "unimatch-v2",
        classifier=_CLASSIFIER[0] in state,
    )


def translate(state: State) -> tuple[str | None, State]:
    """Name the tensors of a foreign state dict as :class:`SegmentationNetwork` does.

    Returns:
        The format (see :class:`LoadedWeights`; None where it is none of them) and the renamed tensors.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if "backbone.pos_embed" in state and "head.projects.0.weight" in state:
        encoder = _renamed(_part(state, "backbone."), _ENCODER)
        decoder = _renamed(_part(state, "head."), _DECODER)
        # The coarsest fusion has nothing to join: the official class holds weights there that are never used.
        decoder = {name: tensor for name, tensor in decoder.items() if not name.startswith("fusions.3.side.")}
        named = {f"encoder.{name}": tensor for name, tensor in _split_qkv(encoder).items()}
        return "unimatch-v2", named | {f"decoder.{name}": tensor for name, tensor in decoder.items()}
    if "pos_embed" in state and "blocks.0.attn.qkv.weight" in state:
        encoder = _split_qkv(_renamed(state, _ENCODER))
        return "dinov2", {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    state = _part(state, "dinov2.") or state
    if "embeddings.position_embeddings" in state:
        return "dinov2-transformers", {
            f"encoder.{name}": tensor for name, tensor in _renamed(state, _HUB).items() if "classifier" not in name
        }
    return None, {}


def _part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _renamed(state: State, rules: Iterable) -> State:
    named = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor
    return named


def _split_qkv(state: State) -> State:
    """One matrix for queries, keys and values becomes three."""
    split = {}
    for name, tensor in state.items():
        if found := re.fullmatch(r"(.*)\.attn\.qkv\.(weight|bias)", name):
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                split[f"{found[1]}.attention.{part}_proj.{found[2]}"] = piece
        else:
            split[name] = tensor
    return split


def _check_fit(path: Path, state: State, own: State, kind: str) -> None:
    expected = {name for name in own if kind == "unimatch-v2" or name.startswith("encoder.")} - {*_CLASSIFIER}
    missing = sorted(expected - {*state} - {"encoder.embeddings.mask_token"})
    surplus = sorted({*state} - {*own})
    other = [name for name in state if name in own and state[name].shape != own[name].shape]
    if missing or surplus or other:
        what = (
            f"{other[0]} has the shape {tuple(state[other[0]].shape)}, expected {tuple(own[other[0]].shape)}"
            if other
            else f"{missing[0]} is missing"
            if missing
            else f"{surplus[0]} is not part of it"
        )
        raise WeightsError(
            f"{path} does not fit the network: {what}.",
            remedy="Choose the network (small, base, large) that the file was made for.",
        )


def _numpy_numbers() -> list:
    """What NumPy numbers are pickled with: a constructor of scalars and the types of numbers."""
    scalar = getattr(np, "_core", None) or np.core
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [scalar.multiarray.scalar, np.dtype, *kinds]

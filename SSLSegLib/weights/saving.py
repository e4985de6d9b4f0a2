"""SAM2 weights of this library's own: written as safetensors with their description beside them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import WeightsError
from ..files import atomic_path, sha256_of
from ..resources import resource
from .catalogue import BUNDLED
from .configuration import Sam2Configuration
from .sidecar import WeightsSidecar, read_sidecar, write_sidecar

__all__ = ["register_bundled", "save_sam2"]


def save_sam2(
    path: Path,
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    configuration: Sam2Configuration,
    *,
    dtype: torch.dtype = torch.float16,
    training: Mapping[str, Any] | None = None,
) -> WeightsSidecar:
    """Write ``path`` (``.safetensors``) and, beside it, its size, SHA-256, configuration and training record.

    Args:
        path: Where to write; replaced in one step if it exists.
        model: A SAM2 or its state dict.
        configuration: How it was built.
        dtype: Precision of storage; loading brings it back to float32.
        training: Anything that JSON can hold: the command, seeds, steps, scores.

    Raises:
        WeightsError: The path ends otherwise, or values are NaN, infinite or too large for ``dtype``.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path} does not end in .safetensors.", remedy="Name the file NAME.safetensors.")
    state = model.state_dict() if isinstance(model, torch.nn.Module) else model
    stored = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        for name, tensor in state.items()
    }
    if broken := [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]:
        raise WeightsError(f"{broken[0]} and {len(broken) - 1} more tensors are not finite as {dtype}.")
    with atomic_path(path) as temporary:
        save_file(stored, temporary)
    sidecar = WeightsSidecar(
        file=path.name,
        size=path.stat().st_size,
        sha256=sha256_of(path),
        configuration=configuration,
        training=dict(training or {}),
    )
    write_sidecar(path, sidecar)
    return sidecar


def register_bundled(weights: Path) -> Path:
    """Make weights written by :func:`save_sam2` the bundled checkpoint of the catalogue; returns its path.

    Raises:
        WeightsError: There is no description beside them, or it is another file's.
    """
    weights = Path(weights)
    sidecar = read_sidecar(weights)
    if sidecar is None or sidecar.sha256 != sha256_of(weights):
        raise WeightsError(
            f"{weights} has no fitting description beside it.", remedy="Write the weights with `save_sam2`."
        )
    target = resource("checkpoint") / f"{BUNDLED}.safetensors"
    if weights.resolve() != target.resolve():
        with atomic_path(target) as temporary:
            shutil.copyfile(weights, temporary)
    write_sidecar(target, sidecar.model_copy(update={"file": target.name}))
    return target

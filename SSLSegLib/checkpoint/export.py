"""From a training's state to weights that ship: averaged, half precision, with their description beside them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import JobError
from ..weights.configuration import Sam2Configuration
from ..weights.saving import register_bundled, save_sam2
from .configuration import SMALL_NAME

__all__ = ["export_checkpoint"]


def export_checkpoint(folder: Path, *, mean_with: Sequence[Path] = (), bundle: bool = False) -> Path:
    """Write ``sslseg-small.safetensors`` (float16, averaged weights) and its JSON into the training's folder.

    Args:
        folder: Of a training (see :class:`training.Trainer`).
        mean_with: Folders of trainings that this one went on from, or that went on from it: the mean of all their
            weights is written. Weights along one path often lie around something better than either end.
        bundle: Also make it the checkpoint that ships, in ``Resources/checkpoint``.

    Returns:
        Path of the weights.

    Raises:
        JobError: A folder holds no training, or the networks are not of one shape.
    """
    folder = Path(folder)
    weights, training, configuration = _read(folder)
    others = [_read(Path(other)) for other in mean_with]
    for state, _, _ in others:
        if {name: value.shape for name, value in state.items()} != {name: w.shape for name, w in weights.items()}:
            raise JobError(
                "The trainings are of networks of different shapes.", remedy="Name trainings of the same network."
            )
    if others:
        weights = {
            name: torch.stack([value, *(state[name] for state, _, _ in others)]).mean(0)
            if value.is_floating_point()
            else value
            for name, value in weights.items()
        }
        training["mean_with"] = [other for _, other, _ in others]
    path = folder / f"{SMALL_NAME}.safetensors"
    save_sam2(path, weights, configuration, training=training)
    return register_bundled(path) if bundle else path


def _read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], Sam2Configuration]:
    """Averaged weights of a training, what is said about it, and its network."""
    try:
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{folder} holds no training.", remedy="Name the --out folder of train-checkpoint.") from error
    configuration = Sam2Configuration.model_validate(options.pop("configuration"))
    training = {
        "command": "python -m SSLSegLib train-checkpoint",
        "data": "generated anatomy only",
        "seed": state["seed"],
        "steps": state["step"],
        "minutes": round(state["elapsed"] / 60, 1),
        "options": options,
        "validation": _last_row(folder / "validation.csv"),
    }
    return state["average"], training, configuration


def _last_row(path: Path) -> dict[str, float]:
    try:
        names, *_, last = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: float(value) for name, value in zip(names.split(","), last.split(","), strict=True)}

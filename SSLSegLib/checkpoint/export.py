"""From a training's state to weights that ship: averaged, half precision, with their description beside them."""

import json
from pathlib import Path

import torch

from ..errors import JobError
from ..weights.configuration import Sam2Configuration
from ..weights.saving import register_bundled, save_sam2
from .configuration import SMALL_NAME

__all__ = ["export_checkpoint"]


def export_checkpoint(folder: Path, *, bundle: bool = False) -> Path:
    """Write ``sslseg-small.safetensors`` (float16, averaged weights) and its JSON into the training's folder.

    Args:
        folder: Of a training (see :class:`training.Trainer`).
        bundle: Also make it the checkpoint that ships, in ``Resources/checkpoint``.

    Returns:
        Path of the weights.

    Raises:
        JobError: The folder holds no training.
    """
    folder = Path(folder)
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
    path = folder / f"{SMALL_NAME}.safetensors"
    save_sam2(path, state["average"], configuration, training=training)
    return register_bundled(path) if bundle else path


def _last_row(path: Path) -> dict[str, float]:
    try:
        names, *_, last = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: float(value) for name, value in zip(names.split(","), last.split(","), strict=True)}

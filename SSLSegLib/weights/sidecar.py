"""What this library writes beside its own weights: ``name.json`` next to ``name.safetensors``. Imports no torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import WeightsError
from ..files import read_json, write_json
from .configuration import Sam2Configuration

__all__ = ["WeightsSidecar", "read_sidecar", "sidecar_path", "write_sidecar"]


class WeightsSidecar(BaseModel):
    """Size in bytes, SHA-256 and architecture of the weights beside it, and how they were trained (any JSON)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    file: str
    size: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    configuration: Sam2Configuration
    training: dict[str, Any] = {}


def sidecar_path(weights: Path) -> Path:
    """``name.json`` for ``name.safetensors``."""
    return Path(weights).with_suffix(".json")


def read_sidecar(weights: Path) -> WeightsSidecar | None:
    """The description beside a file of weights; ``None`` if there is none.

    Raises:
        WeightsError: It is there but does not follow the schema.
    """
    path = sidecar_path(weights)
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as problem:
        raise WeightsError(f"{path} cannot be read as JSON: {problem}.") from problem
    try:
        return WeightsSidecar.model_validate(content)
    except ValidationError as problem:
        raise WeightsError(
            f"{path} does not describe the weights beside it: {problem}",
            remedy="Restore the file that was written together with the weights.",
        ) from problem


def write_sidecar(weights: Path, sidecar: WeightsSidecar) -> Path:
    """Write the description beside a file of weights and return its path."""
    path = sidecar_path(weights)
    write_json(path, sidecar.model_dump(mode="json"))
    return path

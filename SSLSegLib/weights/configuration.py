"""Which SAM2 a file of weights belongs to: a stock configuration and what differs from it. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

__all__ = ["Sam2Configuration"]


_LARGEST_FRAME = 4096
_LARGEST_NUMBER = 8192  # widths and counts of any SAM2 are far below
_DEEPEST, _MOST_ENTRIES = 12, 64


class Sam2Configuration(BaseModel):
    """A stock SAM2 configuration file and what differs from it.

    Args:
        base: Name of a file in ``sam2/configs/sam2.1`` without its ending, e.g. ``sam2.1_hiera_t``.
        image_size: Side of the square frame in pixels, a multiple of 32; the attention's feature size follows
            (side / 16).
        overrides: Nested plain values that replace the file's, such as
            ``{"image_encoder": {"trunk": {"embed_dim": 32}}}``. They may come with a file of weights, so nothing that
            names code is taken: no key with a leading underscore (``_target_``), no interpolation (``${...}``), and
            no number or nesting beyond any SAM2.

        place_prompts: Trained to be told, as a rough mask of each slice, where the class lies in the labelled cases
            (:mod:`SSLSegLib.tffs.place`).

    Raises:
        pydantic.ValidationError: A value of another kind, or overrides that name code.

    Example:
        >>> Sam2Configuration(image_size=512)  # MedSAM2
        Sam2Configuration(base='sam2.1_hiera_t', image_size=512, overrides={})
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = "sam2.1_hiera_t"
    image_size: int = 1024
    overrides: Mapping[str, Any] = {}
    place_prompts: bool = False

    @field_validator("image_size")
    @classmethod
    def _whole_features(cls, value: int) -> int:
        if not 64 <= value <= _LARGEST_FRAME or value % 32:
            raise ValueError(f"image_size must be a multiple of 32 from 64 to {_LARGEST_FRAME}, not {value}")
        return value

    @field_validator("overrides")
    @classmethod
    def _plain_values(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        _refuse_code(value, path="overrides")
        return value


def _refuse_code(value: Any, *, path: str) -> None:
    """Refuse what OmegaConf or Hydra would execute or look up, and sizes that no memory could hold."""
    if path.count(".") > _DEEPEST or (isinstance(value, Mapping | list | tuple) and len(value) > _MOST_ENTRIES):
        raise ValueError(f"{path[:80]}: too deep or too long")
    if isinstance(value, int | float) and not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"{path}: {value} is out of range")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise ValueError(f"{path}: the key {key!r} is not allowed")
            _refuse_code(inner, path=f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_code(inner, path=f"{path}.item")
    elif isinstance(value, str):
        if "${" in value:
            raise ValueError(f"{path}: interpolation is not allowed")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"{path}: a value of type {type(value).__name__} is not allowed")

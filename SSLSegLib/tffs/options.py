"""What can be chosen about TFFS, with the values of the paper and of its official code as defaults."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["PRESETS", "TffsOptions"]

Precision = Literal["exact", "fast", "official"]
Preset = Literal["fast", "balanced", "paper"]

# "paper": as published. "balanced": the same ensemble, bfloat16 where it is harmless. "fast": a smaller ensemble too.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"insertions": 5, "precision": "official", "place": False},
    "balanced": {"insertions": 5, "precision": "fast"},
    "fast": {"insertions": 2, "precision": "fast"},
}


class TffsOptions(BaseModel):
    """Settings of one TFFS run; validated, immutable, JSON in and out.

    Args:
        preset: Fills in whatever is not given: ``fast``, ``balanced`` or ``paper``.
        insertions: R, insertion positions per (unlabelled, labelled) pair (Algorithm 2, line 3; official code: 5).
        threshold: A voxel is foreground where the mean probability is strictly above it.
        largest_component: Keep only the largest 26-connected component of a class (off for paired organs).
        place: Let it count where the class must lie, from labelled cases that are registered to the unlabelled one
            (:mod:`SSLSegLib.tffs.registration`). Not in the paper. None: where the weights were trained for it.
        precision: ``exact`` is float32 throughout; ``fast`` computes memory attention in bfloat16 and all else in
            float32; ``official`` puts everything under bfloat16 autocast as the official code does.
        batch: How many chains go through the network together; None chooses by device.
        max_conditioning_slices: Prompt at most this many labelled slices, evenly spread, and leave the others out.
            Not what the paper does: None (all of them) is the default.
        attention: Kernel of the memory attention: ``sdpa``, ``tiled`` or, by device and precision, ``auto``.
        round_memories: Round stored memories to bfloat16, as SAM2's video predictor does. Off only in tests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset | None = None
    insertions: int = Field(default=5, ge=1)
    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    largest_component: bool = True
    place: bool | None = None
    precision: Precision = "exact"
    batch: int | None = Field(default=None, ge=1)
    max_conditioning_slices: int | None = Field(default=None, ge=1)
    attention: Literal["auto", "sdpa", "tiled"] = "auto"
    round_memories: bool = True

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") in PRESETS:
            return {**PRESETS[given["preset"]], **given}
        return given

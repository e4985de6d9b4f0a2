"""How VESSA is trained and used. Imports no torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TrainingOptions", "VessaOptions"]


class VessaOptions(BaseModel):
    """How a cohort is pseudo-labelled.

    Args:
        templates: ``mean``: the expectation over the candidates under equation 1, which also gives an uncertainty;
            ``sample``: one drawn by equation 1, as in the paper; ``best``: the most alike.
        top: Candidates.
        temperature: tau of equation 1.
        position_weight: How much a template of another level of the body counts less; 0 as in the paper.
        threshold: Foreground above this probability.
        largest_component: Keep the largest component of classes that are one piece.
        named: Tell the language model the class's name, in the words of its terminology if it has one.
        batch: Pairs at a time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    templates: Literal["mean", "sample", "best"] = "mean"
    top: int = Field(default=3, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    position_weight: float = Field(default=0.0, ge=0)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    largest_component: bool = True
    named: bool = False
    batch: int = Field(default=8, ge=1)


class TrainingOptions(BaseModel):
    """Stage 1. The paper gives no numbers; these are Sa2VA's, which trains the same kind of model.

    Args:
        steps: Updates.
        batch: Pairs a step and device.
        accumulate: Steps whose gradients make one update.
        learning_rate: Of LoRA, the new token and the projector; 5 % warm-up, then a cosine to 0.
        sam2_factor: How much slower SAM2's parts learn (1e-5 at the default).
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient.
        warmup: Part of the training.
        empty: Part of the pairs whose target lacks the structure.
        augment: Augment templates (supplement 7).
        temperature: tau of equation 1.
        bank_part: Part of the subjects for the template bank (paper: 5 %).
        bank_slices: Most slices of each structure in the bank, evenly spread over its subjects; None: all of them. They
            are held in memory, about 4 MB each at 1,024 pixels.
        validation_part: Part of the other subjects to validate on.
        validation_pairs: How many pairs.
        validate_every: Updates between validations.
        save_every: Updates between states to resume from.
        precision: ``bfloat16`` is mixed precision.
        checkpoint_activations: Recompute the language model's activations in the backward pass.
        named: Tell the language model the structure's name.
        seed: All draws follow from it by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=10_000, ge=1)
    batch: int = Field(default=2, ge=1)
    accumulate: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=4e-5, gt=0)
    sam2_factor: float = Field(default=0.25, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    empty: float = Field(default=0.15, ge=0, lt=1)
    augment: bool = True
    temperature: float = Field(default=0.1, gt=0)
    bank_part: float = Field(default=0.05, gt=0, lt=1)
    bank_slices: int | None = Field(default=40, ge=1)
    validation_part: float = Field(default=0.1, gt=0, lt=1)
    validation_pairs: int = Field(default=64, ge=1)
    validate_every: int = Field(default=500, ge=1)
    save_every: int = Field(default=500, ge=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    checkpoint_activations: bool = True
    named: bool = False
    seed: int = Field(default=42, ge=0)

    def what(self) -> dict[str, Any]:
        """What the result depends on: everything but how often is saved."""
        return self.model_dump(mode="json", exclude={"save_every"})

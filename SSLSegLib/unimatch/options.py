"""How a UniMatch v2 run trains: three presets, and every number of them can be set on its own. Imports no torch."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from SSLSegLib.unimatch.configuration import NETWORKS, NetworkConfiguration

__all__ = ["PRESETS", "GuideName", "MeanTeacher", "Method", "Preset", "Prompting", "UniMatchOptions"]

Preset = Literal["quick", "standard", "paper"]
GuideName = Literal["none", "tffs", "sam2"]
Method = Literal["unimatch", "supervised", "upper-bound", "mean-teacher"]


class Prompting(BaseModel):
    """How a SAM2 guide is prompted (paper 2, Teacher-to-VESSA feedback; its forms are left open there).

    Args:
        forms: Any of ``mask`` (logits of the class probability), ``box`` and ``points``.
        by: Whose prediction on the weak view becomes the prompt.
        points: Positive points a class, at the largest distances from its outline.
        jitter: Most shift of a box side, as a part of the box.
        start: Part of the training before which the guide stays silent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    forms: tuple[Literal["mask", "box", "points"], ...] = Field(default=("mask", "box"), min_length=1)
    by: Literal["teacher", "student"] = "teacher"
    points: int = Field(default=1, ge=1, le=10)
    jitter: float = Field(default=0.05, ge=0, le=0.5)
    start: float = Field(default=0.0, ge=0, le=1)


class MeanTeacher(BaseModel):
    """Weights of the mean-teacher + SAM baseline (as SemiSAM+ describes it; same network, no strong views).

    Args:
        consistency: Weight of the mean square difference to the teacher, after its ramp-up.
        ramp: Part of the training over which it rises.
        guide: First weight of the mean square difference to SAM; falls to 0 as a cosine.
        ema: Most of itself that the teacher keeps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    consistency: float = Field(default=0.1, ge=0)
    ramp: float = Field(default=0.4, ge=0, le=1)
    guide: float = Field(default=0.5, ge=0)
    ema: float = Field(default=0.99, ge=0, lt=1)


class UniMatchOptions(BaseModel):
    """One run.

    Args:
        preset: Where the other values come from, see :data:`PRESETS`.
        method: ``unimatch``; ``supervised`` on labelled cases only, with twice the batch; ``upper-bound``, the same on
            all cases with a reference (for benchmarks only: it looks at labels that are to be hidden);
            ``mean-teacher``, see :class:`MeanTeacher`.
        guide: Second supervisor.
        network: Encoder and decoder.
        encoder_weights: A file for :func:`SSLSegLib.unimatch.checkpoints.load_weights`; None: random weights.
        freeze_encoder: Train the decoder only.
        views: ``official`` or ``medical``, see :data:`SSLSegLib.unimatch.views.VIEWS`.
        size: Side of a view in pixels, a multiple of the network's patch.
        pixel_mm: Size of its pixels; None: the median case's longer side fills a view.
        steps: Training steps T.
        batch: Labelled and as many unlabelled slices a step.
        foreground: Part of the labelled slices that are chosen to hold a class, each class equally often.
        learning_rate: Of the encoder.
        decoder_factor: How much faster the decoder learns.
        weight_decay, power: Of AdamW and of the poly schedule.
        threshold: tau, the teacher's confidence.
        gate: See :func:`SSLSegLib.unimatch.losses.gates`.
        unsupervised_weight: lambda_u.
        halved: Halve the total loss, as the official code does.
        ce_weight, dice_weight: Of equation 4.
        ema: Most of itself that the teacher keeps.
        guide_confidence: The guide says nothing where it is less sure than this.
        prompting: Of a SAM2 guide.
        mean_teacher: Of that method.
        precision: Of the training on a GPU or CPU; bfloat16 is mixed precision.
        seed: All draws follow from it by name.
        save_every: Steps between states to resume from.
        report_every: Steps between metric events.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = "standard"
    method: Method = "unimatch"
    guide: GuideName = "none"
    network: NetworkConfiguration = NETWORKS["small"]
    encoder_weights: str | None = None
    freeze_encoder: bool = False
    views: Literal["official", "medical"] = "medical"
    size: int = Field(default=518, ge=16)
    pixel_mm: float | None = Field(default=None, gt=0)
    steps: int = Field(default=10_000, ge=1)
    batch: int = Field(default=8, ge=1)
    foreground: float = Field(default=0.5, ge=0, le=1)
    learning_rate: float = Field(default=5e-6, gt=0)
    decoder_factor: float = Field(default=40.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    power: float = Field(default=0.9, ge=0)
    threshold: float = Field(default=0.95, ge=0, le=1)
    gate: Literal["teacher", "own", "either"] = "teacher"
    unsupervised_weight: float = Field(default=1.0, ge=0)
    halved: bool = True
    ce_weight: float = Field(default=0.5, ge=0)
    dice_weight: float = Field(default=0.5, ge=0)
    ema: float = Field(default=0.996, ge=0, lt=1)
    guide_confidence: float = Field(default=0.0, ge=0, le=1)
    prompting: Prompting = Prompting()
    mean_teacher: MeanTeacher = MeanTeacher()
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(default=42, ge=0)
    save_every: int = Field(default=200, ge=1)
    report_every: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.size % self.network.patch:
            raise ValueError(f"size {self.size} is no multiple of the patch of {self.network.patch} pixels")
        if self.method in ("supervised", "upper-bound") and self.guide != "none":
            raise ValueError(f"the method '{self.method}' has no unlabelled slices for a guide to speak about")
        if not self.ce_weight and not self.dice_weight:
            raise ValueError("cross-entropy and Dice cannot both have no weight")
        return self

    @classmethod
    def of(cls, preset: Preset, **changes: Any) -> Self:
        """A preset with some values changed; a change that is None leaves the preset's value.

        Example:
            >>> UniMatchOptions.of("paper").network.layers
            12
        """
        values = {**PRESETS[preset], **{name: value for name, value in changes.items() if value is not None}}
        return cls(preset=preset, **values)

    def what(self) -> dict[str, Any]:
        """What the result depends on: everything but how often is saved and told."""
        return self.model_dump(mode="json", exclude={"save_every", "report_every"})

    @property
    def uses_unlabelled(self) -> bool:
        """Whether the method looks at unlabelled slices."""
        return self.method in ("unimatch", "mean-teacher")


PRESETS: dict[str, dict[str, Any]] = {
    # Minutes on a CPU, from scratch: a small network with smaller patches, and learning rates of a fresh network.
    "quick": {
        "network": NETWORKS["tiny"],
        "size": 96,
        "steps": 1000,
        "batch": 4,
        "learning_rate": 5e-4,
        "decoder_factor": 2.0,
        "threshold": 0.9,
        "ema": 0.99,
    },
    # Hours on a GPU: a pre-trained DINOv2-S (name its weights), mixed precision.
    "standard": {"steps": 10_000, "precision": "bfloat16"},
    # The official recipe: DINOv2-B, float32, views as for photographs; paper 2 adds the Dice term.
    "paper": {"network": NETWORKS["base"], "views": "official", "steps": 40_000, "batch": 16},
}

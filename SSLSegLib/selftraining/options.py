"""How a self-training run trains: three presets, and every number of them can be set on its own."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PRESETS", "Configuration", "FirstLabels", "Network", "Preset", "Schedule", "SelfTrainingOptions"]

Preset = Literal["quick", "standard", "paper"]
Configuration = Literal["2d", "3d_fullres"]
FirstLabels = Literal["given", "best"]


class Network(BaseModel):
    """Limits on what nnU-Net's planner may choose. All None: the planner's own choice for 8 GB of GPU memory.

    Args:
        features: Channels of the first stage (nnU-Net: 32); doubled at every stage up to ``most_features``.
        convolutions: Convolutions in each stage of encoder and decoder (nnU-Net: 2).
        patch_size: Upper limits (slices, rows, columns) in nnU-Net's axis order; 2d uses the last two.
        batch_size: Patches in a batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: int | None = Field(default=None, ge=4)
    most_features: int | None = Field(default=None, ge=4)
    convolutions: int | None = Field(default=None, ge=1, le=4)
    patch_size: tuple[int, int, int] | None = None
    batch_size: int | None = Field(default=None, ge=2)


class Schedule(BaseModel):
    """How one fold is trained. The defaults are nnU-Net's own.

    Args:
        epochs: An epoch is ``iterations`` training batches and ``validation_iterations`` validation batches.
        optimizer: ``sgd`` as in nnU-Net (momentum 0.99, whose memory of about 100 steps is longer than a quick
            training), or ``adamw``.
        augmentation: ``nnunet``: its own, with mirroring and turns by up to 180 degrees in 2d; ``light``: the same
            grey-level changes and scaling, turns by up to 15 degrees, and no mirroring, since few iterations are
            better spent on the orientation that patients have.
        warm_start: Start a fold of a later round from the same fold of the round before, and one of round 1 from a
            network of the cross-validation, where there is one. The paper trains anew.
        save_every: Epochs between checkpoints to resume from.
        workers: Processes that augment data beside the training; 0 augments in the training process, which makes a
            resumed training equal to an uninterrupted one, number for number, on a CPU.
        compile: Compile the network (CUDA only); pays from some hundred iterations on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=1000, ge=1)
    iterations: int = Field(default=250, ge=1)
    validation_iterations: int = Field(default=50, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    augmentation: Literal["nnunet", "light"] = "nnunet"
    warm_start: bool = False
    save_every: int = Field(default=1, ge=1)
    workers: int = Field(default=8, ge=0)
    compile: bool = True


class SelfTrainingOptions(BaseModel):
    """One self-training run.

    Args:
        preset: Where the other values come from, see :data:`PRESETS`.
        configuration: nnU-Net configuration.
        first_labels: What round 1 is trained on: the pseudo-labels as ``given`` (the paper), or, for each class, the
            ``best`` on labelled cases that were left out: those, networks trained on the labelled cases alone, or the
            mean of both (:mod:`SSLSegLib.selftraining.first_labels`).
        rounds: The most rounds to run (paper: 3 with contrast, 2 without).
        folds: Folds of the unlabelled cases; fewer where there are fewer cases.
        seed: All draws follow from it by name.
        stop_agreement: Stop when a round changes its labels less than this (mean foreground Dice to the labels it
            was trained on).
        stop_gain: Stop when the agreement rises by less than this from one round to the next.
        devices: Where folds run, one fold at a time on each (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``).
        folds_per_device: Folds side by side on each device; None: one on a GPU, up to the number of cores on a CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = "standard"
    configuration: Configuration = "3d_fullres"
    first_labels: FirstLabels = "given"
    rounds: int = Field(default=3, ge=1)
    folds: int = Field(default=5, ge=1)
    seed: int = Field(default=42, ge=0)
    network: Network = Network()
    schedule: Schedule = Schedule()
    stop_agreement: float = Field(default=0.98, gt=0, le=1)
    stop_gain: float = Field(default=0.005, ge=-1)
    devices: tuple[str, ...] = Field(default=("cpu",), min_length=1)
    folds_per_device: int | None = Field(default=None, ge=1)

    @classmethod
    def of(cls, preset: Preset, **changes: Any) -> Self:
        """A preset with some values changed; a change that is None leaves the preset's value.

        Example:
            >>> SelfTrainingOptions.of("paper").schedule.epochs
            1000
        """
        values = {**PRESETS[preset], **{name: value for name, value in changes.items() if value is not None}}
        return cls(preset=preset, **values)

    def baseline_schedule(self, labelled: int) -> Schedule:
        """For the baseline of so many labelled cases: as many epochs as the final model has seen.

        With warm start these are those of all rounds, and of the cross-validation where first labels are chosen.
        """
        if not self.schedule.warm_start:
            return self.schedule
        trainings = self.rounds + (self.first_labels == "best" and labelled > 1)
        return self.schedule.model_copy(update={"epochs": self.schedule.epochs * trainings})

    def what(self) -> dict[str, Any]:
        """What the result depends on: everything but how far to go and on which devices."""
        left_out = {"rounds", "devices", "folds_per_device", "stop_agreement", "stop_gain"}
        if self.first_labels == "given":
            left_out.add("first_labels")  # as runs were written down before there was a choice
        return self.model_dump(mode="json", exclude=left_out)


PRESETS: dict[str, dict[str, Any]] = {
    # Minutes on two CPU cores: a small 2d network, in-process augmentation, three folds.
    "quick": {
        "configuration": "2d",
        "first_labels": "best",
        "rounds": 2,
        "folds": 3,
        "network": Network(features=8, most_features=64, convolutions=2, patch_size=(32, 96, 96), batch_size=8),
        "schedule": Schedule(
            epochs=40,
            iterations=20,
            validation_iterations=1,
            optimizer="adamw",
            learning_rate=0.01,
            augmentation="light",
            warm_start=True,
            workers=0,
            compile=False,
        ),
    },
    # Hours on a GPU: nnU-Net's own network and augmentation with a tenth of its epochs.
    "standard": {
        "configuration": "3d_fullres",
        "first_labels": "best",
        "rounds": 2,
        "folds": 5,
        "schedule": Schedule(epochs=100),
    },
    # The paper: nnU-Net's defaults throughout, three rounds.
    "paper": {"configuration": "3d_fullres", "rounds": 3, "folds": 5, "schedule": Schedule(save_every=10)},
}

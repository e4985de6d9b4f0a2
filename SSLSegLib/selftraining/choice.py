"""Which first labels a self-training was begun with, and why, as written down in ``first/choice.json``."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from SSLSegLib.selftraining.errors import SelfTrainingError

__all__ = ["PARTS", "Choice", "read_choice"]

PARTS: dict[str, float] = {"given": 0.0, "mean": 0.5, "networks": 1.0}
"""The candidates: the networks' part in the mean of the two probabilities."""


class Choice(BaseModel):
    """What round 1 is trained on, and why.

    Args:
        parts: Class -> the networks' part in its probability, one of :data:`PARTS`.
        dice: Class -> candidate -> mean Dice over the labelled cases, each segmented without its own label; None where
            no case has the class.
        cases: The labelled cases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    parts: dict[str, float]
    dice: dict[str, dict[str, float | None]]
    cases: tuple[str, ...]

    @property
    def given(self) -> bool:
        """Whether the pseudo-labels stay as they are."""
        return not any(self.parts.values())

    def sentences(self) -> list[str]:
        """What was chosen and why, for people; one sentence a class."""
        names = {part: name for name, part in PARTS.items()}
        words = {
            "given": "the pseudo-labels as they are",
            "mean": "the mean of pseudo-labels and networks",
            "networks": "the networks",
        }
        said = []
        for segment, part in self.parts.items():
            dice = {name: value for name, value in self.dice[segment].items() if value is not None}
            if not dice:
                continue
            figures = f"pseudo-labels {dice['given']:.3f}, networks {dice['networks']:.3f}, mean {dice['mean']:.3f}"
            said.append(
                f"First labels of '{segment}': {words[names[part]]}. Dice on {len(self.cases)} labelled scans, each "
                f"left out in turn: {figures}."
            )
        return said


def read_choice(path: Path) -> Choice | None:
    """What was chosen, or None where nothing has been.

    Raises:
        SelfTrainingError: The file is damaged or from a newer version.
    """
    if not path.is_file():
        return None
    try:
        return Choice.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise SelfTrainingError(
            f"{path} is damaged or from a newer version.", remedy="Delete it; the choice is then made again."
        ) from error

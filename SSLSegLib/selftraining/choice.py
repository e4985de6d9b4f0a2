"""Which first labels a self-training was begun with, and why, as written down in ``first/choice.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from SSLSegLib.selftraining.errors import SelfTrainingError

__all__ = ["PARTS", "STRANGE", "Choice", "read_choice", "stranger_sentence", "strangers"]

PARTS: dict[str, float] = {"given": 0.0, "mean": 0.5, "networks": 1.0}
"""The candidates: the networks' part in the mean of the two probabilities."""

STRANGE = 1 / 3
"""A labelled case is unlike the others when its best Dice is below this part of the median case's."""


class Choice(BaseModel):
    """What round 1 is trained on, and why.

    Args:
        parts: Class -> the networks' part in its probability, one of :data:`PARTS`.
        dice: Class -> candidate -> labelled case -> Dice, each case segmented without its own label. A case without the
            class in which no candidate finds it is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    parts: dict[str, float]
    dice: dict[str, dict[str, dict[str, float]]]

    @property
    def given(self) -> bool:
        """Whether the pseudo-labels stay as they are."""
        return not any(self.parts.values())

    def means(self) -> dict[str, dict[str, float]]:
        """Class -> candidate -> mean Dice; without classes that no labelled case has."""
        return {
            segment: {name: float(np.mean(list(cases.values()))) for name, cases in candidates.items()}
            for segment, candidates in self.dice.items()
            if candidates["given"]
        }

    def strangers(self) -> dict[str, float]:
        """Labelled cases that nothing could segment -> their best Dice (:func:`strangers`)."""
        best: dict[str, float] = {}
        for candidates in self.dice.values():
            for case in candidates["given"]:
                best[case] = max(best.get(case, 0.0), *(of_cases[case] for of_cases in candidates.values()))
        return strangers(best)

    def sentences(self) -> list[str]:
        """What was chosen and why, for people; one sentence a class, and one about cases unlike the others."""
        names = {part: name for name, part in PARTS.items()}
        words = {
            "given": "the pseudo-labels as they are",
            "mean": "the mean of pseudo-labels and networks",
            "networks": "the networks",
        }
        said = []
        for segment, dice in self.means().items():
            figures = f"pseudo-labels {dice['given']:.3f}, networks {dice['networks']:.3f}, mean {dice['mean']:.3f}"
            doubt = not self.parts[segment] and max(dice.values()) > dice["given"]
            said.append(
                f"First labels of '{segment}': {words[names[self.parts[segment]]]}. Dice on "
                f"{len(self.dice[segment]['given'])} labelled scans, each left out in turn: {figures}"
                f"{'; too little to go by' if doubt else ''}."
            )
        return [*said, *(stranger_sentence(case, dice) for case, dice in self.strangers().items())]


def strangers(dice: Mapping[str, float]) -> dict[str, float]:
    """Of labelled cases that were left out in turn, those that the others say next to nothing about.

    Often its contrast is another one, or the label is another image's. To leave it out is not always better: on
    left-atrium MRI it made pseudo-labels worse. Of fewer than three cases nobody can say which is the strange one.
    """
    if len(dice) < 3:
        return {}
    ordinary = float(np.median(list(dice.values())))
    return {case: each for case, each in dice.items() if each < STRANGE * ordinary}


def stranger_sentence(case: str, dice: float) -> str:
    """What to do about a case that :func:`strangers` names."""
    return (
        f"Labelled scan '{case}' cannot be segmented from the others (Dice {dice:.2f}): look at its contrast and at "
        "its label."
    )


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

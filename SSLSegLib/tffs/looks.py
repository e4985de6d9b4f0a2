"""Two looks at a case: later insertions are told what earlier ones found. Not in the paper, where all are alike.

Where a class lies in the labelled cases is a first guess. What a first look found, from all sides, is a better one: a
structure that lies elsewhere than in the labelled cases is found where it was only grazed before. The answer is the
mean of both looks, as in the paper that of all insertions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Insertions", "looks", "sharpened"]

SHARPER = 3
"""By how much the logits of what the first look found are multiplied before the second is told."""


@dataclass(frozen=True)
class Insertions:
    """Insertions that are made together: of one labelled case, into one plane.

    Args:
        labelled: Which of the labelled cases.
        plane: The axis along which slices are taken.
        numbers: Which of the case's R positions.
    """

    labelled: int
    plane: int
    numbers: tuple[int, ...]

    def of(self, positions: Sequence[int]) -> list[int]:
        """Those of the case's positions (fewer than R where slices are few)."""
        return [positions[number] for number in self.numbers if number < len(positions)]


def looks(planes: Sequence[int], insertions: int, labelled: int, *, told: bool) -> list[list[Insertions]]:
    """R insertions of M labelled cases: in two looks where the place of the class is told, else in one.

    The insertions of a case take the planes in turn, and each case begins with another. Two insertions of five are
    the second look's.

    Args:
        planes: Those that insertions take in turn.
        insertions: R.
        labelled: M.
        told: Whether insertions are told the place of the class.

    Example:
        >>> [[each.numbers for each in some] for some in looks((0,), 5, 1, told=True)]
        [[(0, 1, 2)], [(3, 4)]]
    """
    first = insertions - insertions // 2 if told else insertions
    found = [
        [
            Insertions(case, plane, tuple(n for n in numbers if planes[(n + case) % len(planes)] == plane))
            for plane in planes
            for case in range(labelled)
        ]
        for numbers in (range(first), range(first, insertions))
    ]
    return [some for some in ([each for each in some if each.numbers] for some in found) if some]


def sharpened(probability: np.ndarray) -> np.ndarray:
    """What the second look is told: as found, but more decided.

    Told of soft edges the network takes them in: what it finds grows (27 generated volumes, decision 25).

    Args:
        probability: float32, the mean over the first look.
    """
    yes, no = probability**SHARPER, (1 - probability) ** SHARPER
    return yes / (yes + no)

"""Insertions in turn, each told what those before it found. Not in the paper, where none knows of another.

Where a class lies in the labelled cases is a first guess. What some insertions have found is a better one for the
next: a structure that lies elsewhere than in the labelled cases is approached step by step, and from another side is
seen what the turns before could not see. The first insertions, which were told least, only tell the others.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .view import View

if TYPE_CHECKING:
    from .ensemble import ProbabilitySums

__all__ = ["Findings", "Turn", "turns"]

REACH = 6
"""Turns whose findings are told: each plane twice."""


@dataclass(frozen=True)
class Turn:
    """Insertions that are made together: of one labelled case, into one plane, with the same knowledge.

    Args:
        labelled: Which of the labelled cases.
        plane: The axis along which slices are taken.
        insertions: Which of the case's R positions.
        counts: They are part of the mean; the others only tell the next.
    """

    labelled: int
    plane: int
    insertions: slice
    counts: bool = True


def turns(planes: Sequence[int], insertions: int, labelled: int, *, told: bool) -> list[Turn]:
    """R insertions of M labelled cases in their order.

    Where the place of the class is told each insertion has a turn of its own, case after case, and planes change from
    turn to turn; a third of the turns do not count, at most as many as are told. Otherwise no insertion depends on
    another, and those of a case are made together.

    Args:
        planes: Those that insertions take in turn.
        insertions: R.
        labelled: M.
        told: Whether insertions are told the place of the class.

    Example:
        >>> [(turn.labelled, turn.plane, turn.counts) for turn in turns((0, 1, 2), 2, 2, told=True)]
        [(0, 0, False), (1, 1, True), (0, 1, True), (1, 2, True)]
    """
    if not told:
        return [Turn(case, planes[0], slice(None)) for case in range(labelled)]
    scouts = min(REACH, insertions * labelled // 3)
    return [
        Turn(case, planes[(number + case) % len(planes)], slice(number, number + 1), number * labelled + case >= scouts)
        for number in range(insertions)
        for case in range(labelled)
    ]


class Findings:
    """What the last turns found of a class in a volume.

    Args:
        shape: (K, J, I) of the volume.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._turns: deque[tuple[tuple[slice, ...], np.ndarray, int]] = deque()
        self._total = np.zeros(shape, np.float32)
        self._count = np.zeros(shape, np.int16)

    def add(self, view: View, sums: "ProbabilitySums") -> None:
        """Take in the insertions of a turn, and forget those of the turn that is now out of reach."""
        from .ensemble import put_back

        self._turns.append((view.box(self._total.shape), put_back(view, sums.total, self._total.shape), sums.count))
        self._include(self._turns[-1], 1)
        if len(self._turns) > REACH:
            self._include(self._turns.popleft(), -1)

    def _include(self, turn: tuple[tuple[slice, ...], np.ndarray, int], sign: int) -> None:
        box, found, count = turn
        self._total[box] += sign * found
        self._count[box] += sign * count

    def told(self, prior: np.ndarray, view: View) -> np.ndarray:
        """What the next turn is told of where the class lies.

        The mean of what the last turns found; while those are few the labelled cases have half a say, and at first the
        only one.

        Args:
            prior: float32, as ``view`` sees it: how often the class lies there in the labelled cases.
            view: What the frames of the turn show.

        Returns:
            float32 of the prior's shape, 0 to 1.
        """
        if not self._turns:
            return prior
        found = np.clip(view.seen(self._total) / np.maximum(view.seen(self._count), 1), 0, 1)
        return found if len(self._turns) >= REACH else (found + prior) / 2

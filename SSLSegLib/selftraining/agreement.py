"""How far a round has moved the labels, and whether another round is worth its time.

Agreement is the mean foreground Dice between the labels a round was trained on and its predictions of the same cases
by networks that had not seen them; it is what nnU-Net's ``summary.json`` of the validation folders holds (tested).
It says how much the labels still change, not how good they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK
from pydantic import BaseModel, ConfigDict

__all__ = [
    "FLAG_DICE",
    "FLAG_VOLUME",
    "CaseChange",
    "StopReason",
    "compare_labels",
    "dice_by_class",
    "mean_agreement",
    "why_stop",
]

FLAG_DICE = 0.7
"""A case whose labels agree less than this is one to look at."""

FLAG_VOLUME = 0.3
"""So is a case whose foreground grew or shrank by more than this part of its volume."""

StopReason = Literal["agreement", "gain", "limit"]


class CaseChange(BaseModel):
    """What a round did to one case.

    Args:
        dice: Mean over the classes that either label map has; None where both are empty.
        changed: Voxels that changed, as a part of the voxels that are foreground before or after.
        volume: Foreground volume after / before - 1; None where there was none before.
        flagged: Whether a person should look (see :data:`FLAG_DICE`, :data:`FLAG_VOLUME`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dice: float | None
    changed: float
    volume: float | None
    flagged: bool


def dice_by_class(before: np.ndarray, after: np.ndarray, classes: int) -> list[float | None]:
    """Dice of each class of two label maps (K, J, I) with values 0..classes; None where neither has the class."""
    scores: list[float | None] = []
    for value in range(1, classes + 1):
        here, there = before == value, after == value
        size = int(here.sum()) + int(there.sum())
        scores.append(2.0 * int((here & there).sum()) / size if size else None)
    return scores


def compare_labels(before: np.ndarray | Path, after: np.ndarray | Path, classes: int) -> CaseChange:
    """Compare two label maps of a case.

    Args:
        before: (K, J, I) with values 0..classes, or a file of it.
        after: The same.
        classes: Number of classes.
    """
    old, new = (_array(labels) for labels in (before, after))
    scores = [score for score in dice_by_class(old, new, classes) if score is not None]
    dice = float(np.mean(scores)) if scores else None
    either = int(((old > 0) | (new > 0)).sum())
    changed = float((old != new).sum() / either) if either else 0.0
    foreground = int((old > 0).sum())
    volume = float((new > 0).sum() / foreground - 1) if foreground else None
    moved = volume is None or abs(volume) > FLAG_VOLUME
    return CaseChange(
        dice=dice, changed=changed, volume=volume, flagged=dice is not None and (dice < FLAG_DICE or moved)
    )


def mean_agreement(changes: Sequence[CaseChange]) -> float:
    """Mean Dice over the cases that have one; 1 where none has (nothing before, nothing after)."""
    scores = [change.dice for change in changes if change.dice is not None]
    return float(np.mean(scores)) if scores else 1.0


def why_stop(agreements: Sequence[float], limit: int, stop_agreement: float, stop_gain: float) -> StopReason | None:
    """Whether "while not converge" ends here.

    Args:
        agreements: Of the rounds so far, in order.
        limit: The most rounds.
        stop_agreement: Stop when the last round agrees at least this well with its own training labels.
        stop_gain: Stop when the agreement rose by less than this.

    Example:
        >>> why_stop([0.91, 0.985], limit=5, stop_agreement=0.98, stop_gain=0.005)
        'agreement'
    """
    if agreements and agreements[-1] >= stop_agreement:
        return "agreement"
    if len(agreements) >= limit:
        return "limit"
    if len(agreements) > 1 and agreements[-1] - agreements[-2] < stop_gain:
        return "gain"
    return None


def _array(labels: np.ndarray | Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(labels))) if isinstance(labels, Path) else labels

"""Equations 4 to 9 of paper 2, and the loss of the mean-teacher + SAM baseline.

Both strong views are supervised by the same hard labels of the teacher (and of the guide), which CutMix has moved
along with the pixels, so that each view comes with :class:`Targets` of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

__all__ = [
    "IGNORE",
    "Gate",
    "Targets",
    "consistency_loss",
    "dice_loss",
    "gates",
    "hard_targets",
    "joint_loss",
    "supervised_loss",
    "total_loss",
]

IGNORE = 255
"""Label of pixels that teach nothing: outside the image, or too uncertain."""

Gate = Literal["teacher", "own", "either"]


@dataclass(frozen=True)
class Targets:
    """What a strong view is supervised by.

    Args:
        label: (B, H, W) long, the teacher's class.
        confidence: (B, H, W), the teacher's largest probability.
        ignore: (B, H, W) bool, pixels outside the image.
        guide_label: (B, H, W) long, the guide's class; None without a guide. :data:`IGNORE` where it says nothing.
        guide_confidence: (B, H, W), the guide's largest probability.
    """

    label: torch.Tensor
    confidence: torch.Tensor
    ignore: torch.Tensor
    guide_label: torch.Tensor | None = None
    guide_confidence: torch.Tensor | None = None


def hard_targets(probability: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class and its probability, (B, H, W) each, of (B, classes, H, W)."""
    confidence, label = probability.max(dim=1)
    return label, confidence


def dice_loss(logits: torch.Tensor, labels: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
    """The second term of equation 4 over softmax probabilities: sums run over the batch, the background is left out.

    A class that no label of the batch holds adds a constant 1 and no gradient; cross-entropy alone teaches it then.

    Args:
        logits: (B, classes, H, W).
        labels: (B, H, W); :data:`IGNORE` counts nowhere.
    """
    valid = labels != IGNORE
    probability = logits.float().softmax(1)[:, 1:] * valid[:, None]
    classes = logits.shape[1]
    truth = F.one_hot(torch.where(valid, labels, 0), classes).movedim(-1, 1)[:, 1:]
    over = (0, 2, 3)
    common = (probability * truth).sum(over)
    return (1 - 2 * common / (truth.sum(over) + probability.sum(over) + epsilon)).mean()


def supervised_loss(
    logits: torch.Tensor, labels: torch.Tensor, ce_weight: float = 0.5, dice_weight: float = 0.5
) -> torch.Tensor:
    """Equation 4: cross-entropy and Dice. The official UniMatch v2 has ``ce_weight`` 1 and ``dice_weight`` 0.

    Args:
        logits: (B, classes, H, W).
        labels: (B, H, W) long, :data:`IGNORE` outside the image.
    """
    loss = logits.new_zeros((), dtype=torch.float32)
    if ce_weight:
        entropy = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
        loss = loss + ce_weight * entropy / (labels != IGNORE).sum().clamp(min=1)
    if dice_weight:
        loss = loss + dice_weight * dice_loss(logits, labels)
    return loss


def gates(targets: Targets, threshold: float, gate: Gate = "teacher") -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels the teacher and which the guide supervises, (B, H, W) bool each.

    Args:
        targets: Of one view.
        threshold: tau.
        gate: ``teacher``, the indicator of equation 8: where the teacher is confident both speak, elsewhere none.
            ``own``: each where it is confident itself. ``either``: both where at least one is confident.
    """
    inside = ~targets.ignore
    teacher = (targets.confidence >= threshold) & inside
    if targets.guide_label is None:
        return teacher, torch.zeros_like(teacher)
    says = (targets.guide_label != IGNORE) & inside
    if gate == "teacher":
        return teacher, teacher & says
    guide = (targets.guide_confidence >= threshold) & says
    return (teacher, guide) if gate == "own" else (teacher | guide, (teacher | guide) & says)


def joint_loss(
    logits: Sequence[torch.Tensor],
    targets: Sequence[Targets],
    *,
    threshold: float,
    teacher_weight: float = 1.0,
    guide_weight: float = 0.0,
    gate: Gate = "teacher",
) -> torch.Tensor:
    """Equation 8; with a guide's weight of 0 and a teacher's of 1, equation 5.

    As in the official code the sum over gated pixels is divided by the number of pixels inside the image, not by
    that of the confident ones: an unsure teacher makes a small loss.

    Args:
        logits: Of the two strong views, (B, classes, H, W) each.
        targets: Of the two, in the same order.
        threshold: tau.
        teacher_weight: alpha_t.
        guide_weight: alpha_v.
        gate: See :func:`gates`.
    """
    losses = []
    for view, target in zip(logits, targets, strict=True):
        teacher_gate, guide_gate = gates(target, threshold, gate)
        log_probability = F.log_softmax(view.float(), dim=1)  # once for both supervisors
        loss = teacher_weight * (_entropy(log_probability, target.label) * teacher_gate).sum()
        if target.guide_label is not None and guide_weight:
            loss = loss + guide_weight * (_entropy(log_probability, target.guide_label) * guide_gate).sum()
        losses.append(loss / (~target.ignore).sum().clamp(min=1))
    return sum(losses) / len(losses)


def total_loss(
    supervised: torch.Tensor, unsupervised: torch.Tensor, unsupervised_weight: float = 1.0, *, halved: bool = True
) -> torch.Tensor:
    """Equations 6 and 9, L_sup + lambda_u L_u; halved as a whole in the official code."""
    total = supervised + unsupervised_weight * unsupervised
    return total / 2 if halved else total


def consistency_loss(logits: torch.Tensor, probability: torch.Tensor, ignore: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between the student's probabilities and another's, over the pixels inside the image.

    Args:
        logits: The student's, (B, classes, H, W).
        probability: The teacher's or SAM's, (B, classes, H, W).
        ignore: (B, H, W) bool.
    """
    inside = ~ignore[:, None]
    square = (logits.float().softmax(1) - probability).square() * inside
    return square.sum() / (inside.sum().clamp(min=1) * logits.shape[1])


def _entropy(log_probability: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """H(p, y) per pixel; 0 where the label is :data:`IGNORE`."""
    known = label != IGNORE
    chosen = log_probability.gather(1, torch.where(known, label, 0)[:, None])[:, 0]
    return -chosen * known

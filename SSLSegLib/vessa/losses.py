"""Equations 2 and 3 of paper 2, written as there."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.vessa.model import VessaOutput

__all__ = ["LossWeights", "VessaLosses", "bce_term", "dice_term", "mask_loss", "text_loss", "vessa_loss"]

EPSILON = 1e-6


class LossWeights(BaseModel):
    """Weights. The paper gives none; those of LISA, which Sa2VA has too.

    Args:
        text: lambda_txt.
        mask: lambda_mask.
        dice: lambda_dice.
        bce: lambda_bce.
        presence: Of the cross-entropy of SAM2's object score; not in the paper, and without it nothing would tell an
            empty target.
        text_reduction: ``mean`` over the tokens, as in LISA and Sa2VA whose weights these are; ``sum`` as equation 2
            is written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: float = Field(default=1.0, ge=0)
    mask: float = Field(default=1.0, ge=0)
    dice: float = Field(default=0.5, ge=0)
    bce: float = Field(default=2.0, ge=0)
    presence: float = Field(default=0.5, ge=0)
    text_reduction: Literal["mean", "sum"] = "mean"


@dataclass(frozen=True)
class VessaLosses:
    """The total, to be minimised, and its parts without gradient and before their weights."""

    total: torch.Tensor
    text: torch.Tensor
    dice: torch.Tensor
    bce: torch.Tensor
    presence: torch.Tensor


def text_loss(logits: torch.Tensor, targets: torch.Tensor, reduction: Literal["mean", "sum"] = "mean") -> torch.Tensor:
    """First term of equation 2, - sum_t log P(y_t).

    Args:
        logits: (n, vocabulary), of the answers' tokens.
        targets: (n,).
        reduction: See :class:`LossWeights`.
    """
    return F.cross_entropy(logits.float(), targets, reduction=reduction)


def dice_term(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """First bracket of equation 3, the mean over the batch of 1 - 2 sum(m m^) / (sum m + sum m^ + eps).

    The paper calls m^ logits and uses them as probabilities: a sigmoid makes them so. An empty target gives 1 whatever
    is predicted, and no gradient; the cross-entropy speaks there.

    Args:
        logits: (B, 1, H, W).
        masks: Binary, (B, 1, H, W).
    """
    found, true = logits.float().sigmoid().flatten(1), masks.float().flatten(1)
    return (1 - 2 * (true * found).sum(1) / (true.sum(1) + found.sum(1) + EPSILON)).mean()


def bce_term(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Second bracket of equation 3, the binary cross-entropy over all N pixels."""
    return F.binary_cross_entropy_with_logits(logits.float(), masks.float())


def mask_loss(logits: torch.Tensor, masks: torch.Tensor, weights: LossWeights | None = None) -> torch.Tensor:
    """Equation 3."""
    weights = weights or LossWeights()
    return weights.dice * dice_term(logits, masks) + weights.bce * bce_term(logits, masks)


def vessa_loss(output: VessaOutput, masks: torch.Tensor, weights: LossWeights | None = None) -> VessaLosses:
    """Equation 2, and the object score's term.

    Args:
        output: Of B pairs.
        masks: Binary, (B, 1, S, S); the logits are brought to its size.
        weights: Of the terms.
    """
    weights = weights or LossWeights()
    logits = F.interpolate(output.logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    dice, bce = dice_term(logits, masks), bce_term(logits, masks)
    there = masks.flatten(1).any(1, keepdim=True).float()
    presence = F.binary_cross_entropy_with_logits(output.presence.float(), there)
    text = logits.new_zeros(())
    if output.text_logits is not None:
        text = text_loss(output.text_logits, output.text_targets, weights.text_reduction)
    total = weights.text * text + weights.mask * (weights.dice * dice + weights.bce * bce) + weights.presence * presence
    return VessaLosses(
        total=total, text=text.detach(), dice=dice.detach(), bce=bce.detach(), presence=presence.detach()
    )

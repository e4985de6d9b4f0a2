"""What the bundled checkpoint is trained to get right: masks, where to look, and likeness of equal structures."""

import torch
import torch.nn.functional as F

from .teaching import Decoded

__all__ = ["correspondence_loss", "matching_loss", "segmentation_loss"]


def segmentation_loss(decoded: Decoded, masks: torch.Tensor, use: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """2 x binary cross-entropy + Dice + 0.4 x object score, and the mean soft Dice.

    Where the target is not, found / (found + 1 % of the slice) takes the place of the Dice term: in a whole volume most
    slices are without the target, and what is found there costs little in cross-entropy.

    Args:
        masks: bool (G, L, S, S).
        use: bool (G, L), which slices count.
    """
    size = masks.shape[-2:]
    logits = F.interpolate(decoded.logits.float(), size, mode="bilinear", align_corners=False)
    truth = masks.float()
    present = masks.flatten(2).any(2)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((2, 3))
    probability = logits.sigmoid()
    overlap = (probability * truth).sum((2, 3))
    dice = (2 * overlap + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    score = F.binary_cross_entropy_with_logits(decoded.score.float(), present.float(), reduction="none")
    counted = use.float()
    shown = counted * present
    found = probability.sum((2, 3)) / (size[0] * size[1])
    missed = torch.where(present, 1 - dice, found / (found + 0.01))
    loss = (counted * (2 * entropy + missed + 0.4 * score)).sum() / counted.sum().clamp(min=1)
    return loss, (shown * dice).sum() / shown.sum().clamp(min=1)


def matching_loss(decoded: Decoded, masks: torch.Tensor, use: torch.Tensor) -> torch.Tensor:
    """Tokens of the target are to look at tokens of the target, others elsewhere: cross-entropy + Dice at stride 16.

    It teaches directly what the segmentation loss teaches only through a decoder that does not know yet what to do
    with what it is given. Arguments as for :func:`segmentation_loss`.
    """
    tokens = decoded.pointed_at[0].shape[2]
    truth = F.adaptive_avg_pool2d(masks.float(), round(tokens**0.5)).flatten(2)
    weight = use.float() * masks.flatten(2).any(2)
    total = truth.new_zeros(())
    for found in decoded.pointed_at:
        guess = found[..., 0].float().clamp(1e-4, 1 - 1e-4)
        entropy = F.binary_cross_entropy(guess, truth, reduction="none").mean(2)
        dice = (2 * (guess * truth).sum(2) + 0.1) / (guess.sum(2) + truth.sum(2) + 0.1)
        total = total + (weight * (entropy + 1 - dice)).sum() / weight.sum().clamp(min=1)
    return total / len(decoded.pointed_at)


def correspondence_loss(features: torch.Tensor, structures: torch.Tensor, labelled: int) -> torch.Tensor:
    """Places of one subject are to look like the same structure in the other, for all structures at once.

    Each token of the chain takes the structures of the labelled tokens by likeness (softmax of the cosine); what it
    gets is compared with what it holds, each structure that both subjects have counting the same.

    Args:
        features: (B, R + L, C, h, w), the feature map that memories are made from.
        structures: (B, R + L, 4 h, 4 w), 0 is none.
        labelled: R.
    """
    tokens = features.flatten(3).mT
    tokens = F.normalize(tokens - tokens.mean((1, 2), keepdim=True), dim=-1)
    held = F.one_hot(structures.long()).permute(0, 1, 4, 2, 3).float()
    held = F.avg_pool2d(held.flatten(0, 1), 4).unflatten(0, held.shape[:2]).flatten(3).mT  # (B, R + L, hw, K)
    given, wanted = held[:, :labelled].flatten(1, 2), held[:, labelled:].flatten(1, 2)
    likeness = tokens[:, labelled:].flatten(1, 2) @ tokens[:, :labelled].flatten(1, 2).mT
    found = (likeness / 0.1).softmax(-1) @ given
    size = wanted.sum(1)
    missed = -(wanted * (found + 1e-3).log()).sum(1) / size.clamp(min=1e-6)
    shared = (given.sum(1) > 1) & (size > 0.5)
    shared[:, 0] = False
    return (missed * shared).sum() / shared.sum().clamp(min=1)

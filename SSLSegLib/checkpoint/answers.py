"""Earlier answers for a network that is to improve on them: the truth with the mistakes that ensembles make."""

import torch
import torch.nn.functional as F

__all__ = ["spoiled"]


def _smooth(shape: tuple[int, ...], coarse: int, like: torch.Tensor) -> torch.Tensor:
    """Smooth normal noise (n, c, rows, columns), drawn on ``coarse`` x ``coarse`` places."""
    drawn = torch.randn(*shape[:2], coarse, coarse, device=like.device)
    return F.interpolate(drawn, shape[2:], mode="bicubic", align_corners=False)


def spoiled(masks: torch.Tensor, side: int) -> torch.Tensor:
    """What insertions may have found of a target: bent, with pieces and slices missing, with something false beside it.

    All slices of a group are spoiled alike, as an ensemble over whole volumes errs.

    Args:
        masks: bool (G, L, S, S), the truth.
        side: Of the answer in pixels.

    Returns:
        float32 (G, L, side, side), probabilities.
    """
    groups, length = masks.shape[:2]
    device = masks.device
    answer = F.interpolate(masks.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)

    def chance(probability: float) -> torch.Tensor:
        return (torch.rand(groups, 1, 1, 1, device=device) < probability).float()

    identity = torch.eye(2, 3, device=device).expand(groups, -1, -1)
    straight = F.affine_grid(identity, [groups, 1, side, side], align_corners=False)
    bent = 0.2 * torch.rand(groups, 1, 1, 1, device=device) ** 2 * _smooth((groups, 2, side, side), 3, answer)
    answer = F.grid_sample(answer, straight + bent.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)
    there = torch.sigmoid(6 * (_smooth((groups, 1, side, side), 5, answer) + 1.0))
    answer = answer * torch.where(chance(0.5) > 0, there, 1.0)
    found = torch.randn(groups, 1, 3, device=device)
    found = torch.sigmoid(6 * (F.interpolate(found, length, mode="linear", align_corners=True) + 1.0))
    answer = answer * torch.where(chance(0.5) > 0, found.view(groups, length, 1, 1), 1.0)
    shift = [int(x) for x in torch.randint(-side // 3, side // 3 + 1, (2,))]
    false = answer.roll(shift, (2, 3)) * torch.sigmoid(6 * _smooth((groups, 1, side, side), 5, answer))
    answer = torch.maximum(answer, chance(0.3) * false)
    sure = 0.6 + 0.4 * torch.rand(groups, 1, 1, 1, device=device)
    return F.avg_pool2d(answer * sure, 3, 1, 1).clamp(0, 1)

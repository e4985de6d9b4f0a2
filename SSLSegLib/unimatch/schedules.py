"""What changes over a training: learning rate, the guide's weight, the teacher's inertia. ``step`` counts from 0."""

import math
from collections.abc import Iterable

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["cosine_ramp", "ema_ratio", "poly", "sigmoid_ramp", "update_teacher"]


def poly(step: int, total: int, power: float = 0.9) -> float:
    """Factor of the learning rate, ``(1 - step / total) ** power``: 1 at the start, 0 at the end."""
    return (1 - min(step, total) / total) ** power


def cosine_ramp(step: int, total: int) -> float:
    """eta(t) of paper 2, the teacher's weight: 0 at the start, 1 at the end; the guide's is 1 - eta."""
    return 0.5 * (1 - math.cos(math.pi * min(step, total) / total))


def sigmoid_ramp(step: int, length: float) -> float:
    """The mean teacher's ramp-up, ``exp(-5 (1 - step / length)^2)``: 0.007 at the start, 1 from ``length`` on."""
    if length <= 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(step / length, 1.0)) ** 2)


def ema_ratio(step: int, most: float = 0.996) -> float:
    """How much of itself the teacher keeps, ``min(1 - 1 / (step + 1), most)``; the first step copies the student."""
    return min(1 - 1 / (step + 1), most)


@torch.no_grad()
def update_teacher(teacher: torch.nn.Module, student: torch.nn.Module, ratio: float) -> None:
    """theta_t <- ratio theta_t + (1 - ratio) theta_s, for parameters and buffers; whole numbers are copied."""
    ours, theirs = _tensors(teacher), _tensors(student)
    floating = [index for index, tensor in enumerate(ours) if tensor.is_floating_point()]
    average = get_ema_multi_avg_fn(ratio)
    average([ours[index] for index in floating], [theirs[index] for index in floating], None)
    for index in set(range(len(ours))) - set(floating):
        ours[index].copy_(theirs[index])


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    both: Iterable[torch.Tensor] = (*module.parameters(), *module.buffers())
    return [tensor.detach() for tensor in both]

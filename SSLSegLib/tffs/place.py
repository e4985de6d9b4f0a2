"""Where a structure lies in the labelled cases: told to the network, or averaged with its answer. Not in the paper.

SAM2's memory is told how a structure looks, and neither at which height of the volume nor, beyond the reach of its
position encoding, where in the slice. Labelled volumes that are registered to the unlabelled one tell it both.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from ..weights.configuration import Sam2Configuration
    from .registration import Displacement

__all__ = ["moved_prior", "place_prompts", "use_of_place", "with_place"]

SPREAD = 0.008
"""Of the blur, a standard deviation as a share of each axis."""


def use_of_place(asked: bool | None, configuration: "Sam2Configuration") -> Literal["told", "averaged"] | None:
    """What becomes of the place of a class.

    Args:
        asked: None leaves it to the weights.

    Returns:
        ``told``: each slice's rough mask for the network, which was trained to be told; ``averaged``: the network knows
        nothing of it and its answer is averaged with it, only if asked for; None: left out, as in the paper.
    """
    if configuration.place_prompts:
        return None if asked is False else "told"
    return "averaged" if asked else None


def moved_prior(moved: "Iterable[tuple[Displacement, np.ndarray]]", shape: tuple[int, int, int]) -> np.ndarray:
    """How likely a class lies at each place, from labelled masks laid on an unlabelled volume by registration.

    Args:
        moved: Where each place of the unlabelled volume lies in a labelled one, and the mask bool (K, J, I) there.
        shape: (K, J, I) of the unlabelled volume.

    Returns:
        float32 of that shape, 0 to 1.
    """
    from .vote import vote

    return vote(moved, shape, SPREAD)


def with_place(probability: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The mean of both voices: neither decides alone against the other's certainty."""
    return ((probability + prior) / 2).astype(np.float32)


def place_prompts(prior: torch.Tensor, side: int) -> torch.Tensor:
    """A prior as the rough mask that SAM2's prompt encoder takes: logits, as of an earlier prediction.

    Args:
        prior: float32 (n, rows, columns), 0 to 1.
        side: Of the prompt in pixels, a quarter of the frame's.

    Returns:
        float32 (n, 1, side, side), within plus and minus 6.
    """
    prior = prior[:, None].float()
    if prior.shape[-2:] != (side, side):
        prior = F.interpolate(prior, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return prior.clamp(0.0025, 0.9975).logit()

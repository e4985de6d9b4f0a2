"""Samples from the phantom cohorts' own abdomens (``cases.phantoms``), of subjects that no cohort holds.

A part of the training, so that the demo and newcomers' first tries are on familiar ground. The subjects' seeds are kept
apart from those of cohorts: a cohort is always of unseen subjects.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..cases.phantoms import make_phantom
from ..seeds import named_seed

__all__ = ["PhantomPool", "coarse", "resized"]


class PhantomPool:
    """Phantom subjects that are made as needed and reused with new targets, views and brightness.

    Args:
        first, size: Subjects made before the first sample, and at most kept.
        renewal: Probability that a sample comes with one more subject while there is room.
    """

    def __init__(self, first: int = 4, size: int = 100, renewal: float = 0.15) -> None:
        self.first, self.size, self.renewal = first, size, renewal
        self.subjects: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _some(self, rng: np.random.Generator, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        while len(self.subjects) < self.first or (len(self.subjects) < self.size and rng.random() < self.renewal):
            seed = named_seed("phantoms for training", int(rng.integers(2**31)))
            volume, labels = make_phantom(seed, 0)
            self.subjects.append((torch.from_numpy(volume.array[0]), torch.from_numpy(labels)))
        return [self.subjects[i] for i in rng.choice(len(self.subjects), count, replace=False)]

    def sample(
        self, rng: np.random.Generator, targets: int, labelled: int, chain: int, *, resliced: float = 0.0
    ) -> tuple[
        list[torch.Tensor], list[torch.Tensor], torch.Tensor, list[torch.Tensor], list[torch.Tensor], np.ndarray
    ]:
        """Images and masks of two subjects, and how far the labelled slices are from the chain.

        Args:
            rng: Source of everything.
            targets, labelled, chain: How many targets, labelled slices and slices of the chain.
            resliced: How often slices lie across the volume, every third of them.

        Returns:
            images [(labelled, J, I), (chain, J, I)], masks [(targets, labelled, J, I), (targets, chain, J, I)],
            distance (labelled,), the classes [(labelled, J, I), (chain, J, I)], masks (targets, K, J, I) of whole
            labelled subjects and the chain's slices.
        """
        some = self._some(rng, int(rng.integers(2, self.first + 1)))
        if rng.random() < resliced:
            axis = int(rng.integers(1, 3))
            some = [(image.movedim(axis, 0)[1::3], labels.movedim(axis, 0)[1::3]) for image, labels in some]
        (image, labels), (other_image, other_labels), *others = some
        depth = len(labels)
        classes = rng.choice([1, 2, 3, 4], size=targets, replace=targets > 4)
        where = np.flatnonzero((labels == int(classes[0])).flatten(1).any(1).numpy())
        low, high = max(int(where[0]) - 2, 0), min(int(where[-1]) + 3, depth)
        spread = np.linspace(low, high - 1, labelled) + rng.uniform(-0.5, 0.5, labelled)
        reference = np.sort(np.clip(spread.round().astype(int), 0, depth - 1))
        reference[labelled // 2] = rng.choice(where)
        reference = np.sort(reference)
        start = int(rng.integers(0, depth - chain + 1))
        run = np.arange(start, start + chain)
        end = depth
        if rng.random() < 0.5:
            reference, run, end = reference[::-1].copy(), run[::-1].copy(), -1
        images = [image[torch.from_numpy(reference)], other_image[torch.from_numpy(run)]]
        chosen = [labels[torch.from_numpy(reference)], other_labels[torch.from_numpy(run)]]
        masks = [torch.stack([some == int(c) for c in classes]) for some in chosen]
        known = [torch.stack([x == int(c) for c in classes]) for x in (labels, *(x for _, x in others))]
        if rng.random() < 0.3:  # a population of the other hand
            images, masks, chosen, known = ([x.flip(-1) for x in some] for some in (images, masks, chosen, known))
        gamma = np.exp(0.2 * rng.normal())
        images = [(x / x.max()).pow(gamma) for x in images]
        return images, masks, torch.tensor(np.abs(end - reference), dtype=torch.float32), chosen, known, run


def coarse(structures: torch.Tensor, image_size: int) -> torch.Tensor:
    """Structures (n, J, I) by number at a quarter of the frame, uint8 (n, S / 4, S / 4)."""
    size = (image_size // 4, image_size // 4)
    return F.interpolate(structures[:, None].float(), size, mode="nearest-exact")[:, 0].to(torch.uint8)


def resized(masks: torch.Tensor, image_size: int) -> torch.Tensor:
    """Masks bool (n, m, J, I) as the engine makes prompts of them: bool (n, m, S, S)."""
    size = (image_size, image_size)
    return F.interpolate(masks.float(), size, mode="bilinear", align_corners=False, antialias=True) > 0.5

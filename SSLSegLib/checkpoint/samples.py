"""Training samples: labelled slices of one generated subject, a chain of slices of another, masks of a target."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch.utils.data import IterableDataset, get_worker_info

from ..seeds import named_rng
from ..tffs.place import SPREAD
from ..tffs.registration import registrable
from ..tffs.vote import agreed, vote_weights
from .anatomy import Anatomy
from .atlas import draw_anatomy
from .familiar import PhantomPool, coarse, resized
from .rendering import draw_contrast, related_contrast, render
from .views import (
    EVERYTHING,
    View,
    across,
    as_coarse,
    displayed,
    drawn_field,
    drawn_region,
    drawn_regions,
    field_around,
    to_frames,
)

__all__ = ["CHANGES", "Batch", "SampleOptions", "Samples", "Subjects", "draw_sample", "draw_subjects", "place_at"]

CHANGES = ("same", "shifted", "new")
_UNREGISTERED_SPREAD = 0.025
_REGISTERED_CHANGES = (0.45, 0.3, 0.25)
_SUBJECTS = 4  # of one anatomy: one is the chain's, one to three say where the target lies, one of them is labelled


@dataclass(frozen=True)
class SampleOptions:
    """What a batch holds.

    Args:
        image_size: Side of a frame in pixels.
        batch: Subject pairs in a batch.
        shapes: Slices of the labelled subject and of the chain, drawn together from these choices.
        targets: Targets asked for in each pair.
        distinct: Probability that every structure has its own brightness, at the first batch and from batch ``easing``
            on. Matching by brightness is learnt first and quickly; what takes its place when it fails builds on it.
        phantoms: Share of samples from the abdomens of the phantom cohorts.
        zoomed: Share of the samples whose frames show the target's region, as the engine's do (``tffs.region``).
        resliced: Share of the samples whose slices lie across the volume, as the engine's other planes do.
        registered: Share of the samples whose place is of labelled subjects registered to the chain's.
        changes: How often the second subject's contrast is the same, shifted, or a new one (``CHANGES``).
        pool: Anatomies with their subjects kept for reuse with new intensities, targets, views.
        renewal: Probability that a sample starts with a new anatomy.
    """

    image_size: int = 128
    batch: int = 4
    shapes: tuple[tuple[int, int], ...] = ((4, 6), (8, 5), (12, 5), (20, 4))
    targets: int = 2
    distinct: tuple[float, float] = (0.15, 0.15)
    easing: int = 1
    phantoms: float = 0.0
    zoomed: float = 0.7
    resliced: float = 0.5
    registered: float = 0.75
    changes: tuple[float, float, float] = (0.75, 0.2, 0.05)
    pool: int = 150
    renewal: float = 0.04


@dataclass
class Subjects:
    """Subjects of one anatomy; ``labels`` uint8 (n, K, J, I)."""

    anatomy: Anatomy
    labels: torch.Tensor
    _moved: tuple[torch.Tensor, torch.Tensor] | None = None

    def moved(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels of all but the first, registered to the first by images of both as the engine does.

        Done once, with a contrast drawn then.

        Returns:
            uint8 (n - 1, K, J, I); and how unlike the images still are around each voxel, (n - 1, 1, k, j, i).
        """
        if self._moved is None:
            tissues, every = self.anatomy.tissues, np.arange(self.labels.shape[1])
            contrast = draw_contrast(rng, tissues)
            change = str(rng.choice(CHANGES, p=_REGISTERED_CHANGES))
            fixed, *moving = (
                registrable(displayed(render(labels, every, related_contrast(rng, contrast, tissues, how), rng)))
                for labels, how in zip(self.labels, [change] + ["same"] * (len(self.labels) - 1), strict=True)
            )
            shape = self.labels.shape[1:]
            found = [fixed.displacement(other, iterations=40) for other in moving]
            labels = [each.moved(x, shape, nearest=True) for each, x in zip(found, self.labels[1:], strict=True)]
            self._moved = torch.stack(labels).to(torch.uint8), torch.cat([each.unlike for each in found])
        return self._moved


@dataclass
class Batch:
    """B pairs with T targets each: R slices of a labelled subject, then a chain of L slices of another.

    Args:
        frames: float32 (B, R + L, 3, S, S), ImageNet-normalised.
        masks: bool (B, T, R + L, S, S).
        distance: float32 (B, R), frames from each labelled slice to the chain's first frame in travel direction.
        structures: uint8 (B, R + L, S / 4, S / 4), every structure by its number, the same in both subjects; 0 is none.
        place: float32 (B, T, L, S / 4, S / 4), how often the target lies there in labelled subjects (``tffs.place``).
    """

    frames: torch.Tensor
    masks: torch.Tensor
    distance: torch.Tensor
    structures: torch.Tensor
    place: torch.Tensor
    labelled: int

    def to(self, device: str | torch.device) -> "Batch":
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in moved.items()})


def draw_subjects(rng: np.random.Generator) -> Subjects:
    """A new anatomy and subjects of it."""
    anatomy = draw_anatomy(rng)
    amount = rng.uniform(0.02, 0.11)
    return Subjects(anatomy, torch.stack([anatomy.subject(rng, amount=amount).labels for _ in range(_SUBJECTS)]))


def place_at(
    rng: np.random.Generator, masks: Sequence[torch.Tensor], slices: np.ndarray, side: int, *, registered: bool = False
) -> torch.Tensor:
    """Where labelled subjects have the targets, for some slices of another subject.

    As ``tffs.place.moved_prior`` where they were registered to it. Otherwise by relative position and with each subject
    moved along the slice axis at random: registration can fail.

    Args:
        masks: bool (T, K, rows, columns), one for each subject, of one K; or float32, what they say together.
        slices: Of the other subject.
        registered: The masks were moved to the other subject by registration: as they are, and hardly blurred.

    Returns:
        float32 (T, len(slices), side, side).
    """
    total = torch.zeros(())
    spread = SPREAD if registered else _UNREGISTERED_SPREAD
    for mask in masks:
        depth = mask.shape[1]
        moved = slices + (0.0 if registered else depth * (0.1 if rng.random() < 0.15 else 0.03) * rng.normal())
        weight = np.exp(-0.5 * ((np.arange(depth) - moved[:, None]) / (spread * depth)) ** 2)
        weight = torch.from_numpy(weight / np.maximum(weight.sum(1, keepdims=True), 1e-6)).float()
        small = F.interpolate(mask.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)
        total = total + torch.einsum("lk,tkrc->tlrc", weight, small)
    blurred = gaussian_filter(total.numpy() / len(masks), [0, 0, spread * side, spread * side], mode="nearest")
    return torch.from_numpy(blurred).clamp_(0, 1)


def _slices(rng: np.random.Generator, present: np.ndarray, labelled: int, chain: int) -> tuple[np.ndarray, np.ndarray]:
    """Labelled slices spread over the structure (and a little beyond) and a run of slices of the other subject.

    Args:
        present: bool (2, K), where the leading target is in the two subjects.
    """
    depth = present.shape[1]
    where = np.flatnonzero(present[0])
    low, high = max(where[0] - 4, 0), min(where[-1] + 5, depth)
    spread = np.linspace(low, high - 1, labelled) + rng.uniform(-0.5, 0.5, labelled) * (high - low) / labelled
    reference = np.sort(np.clip(spread.round().astype(int), 0, depth - 1))
    if not present[0][reference].any():
        reference[rng.integers(labelled)] = rng.choice(where)
    stride = int(rng.choice([1, 1, 2, 3]))
    reach = (chain - 1) * stride
    other = np.flatnonzero(present[1])
    if other.size and rng.random() < 0.75:
        first = int(rng.choice(other)) - int(rng.integers(0, reach + 1))
    else:
        first = int(rng.integers(0, depth))
    first = int(np.clip(first, 0, max(depth - 1 - reach, 0)))
    return np.sort(reference), np.clip(first + stride * np.arange(chain), 0, depth - 1)


def draw_sample(
    rng: np.random.Generator,
    subjects: Subjects,
    options: SampleOptions,
    labelled: int,
    chain: int,
    *,
    change: str | None = None,
    distinct: bool = False,
) -> tuple[torch.Tensor, ...] | None:
    """One item of a batch, or None where the subjects show no target of a usable size.

    Returns:
        frames (R + L, 3, S, S), masks (T, R + L, S, S), distance (R,), structures (R + L, S / 4, S / 4), place
        (T, L, S / 4, S / 4).
    """
    anatomy = subjects.anatomy
    registered = rng.random() < options.registered
    if registered:
        order = torch.from_numpy(rng.permutation(len(subjects.labels) - 1))
        labels = subjects.labels[torch.stack([1 + order[0], torch.tensor(0)])]
        moved, unlike = subjects.moved(rng)
        some = order[: 1 + rng.integers(len(order))]
        others, weights = moved[some], vote_weights(unlike[some], moved.shape[1:])
    else:
        order = torch.from_numpy(rng.permutation(len(subjects.labels)))
        everyone = subjects.labels[order[: 2 + rng.integers(len(order) - 1)]]
        labels, others = everyone[:2], everyone[2:]
    resliced = rng.random() < options.resliced
    if resliced:
        axis = int(rng.integers(1, 3))
        labels = across(labels, axis)
        others = across(others, axis) if len(others) else others
        weights = across(weights, axis) if registered else None
    count = len(anatomy.tissues)
    # Area of each structure in each slice, (2, K, structures).
    flat = labels.flatten(2).int() + torch.arange(2 * labels.shape[1]).view(2, -1, 1) * count
    area = torch.bincount(flat.flatten(), minlength=2 * labels.shape[1] * count).view(2, -1, count).numpy()
    usable = []
    for candidate in anatomy.candidates:
        size = area[:, :, list(candidate)].sum(2)
        if size[0].max() > 90 and (size[1].max() > 60 or rng.random() < 0.05):
            usable.append((candidate, size))
    if not usable:
        return None
    # Large structures more often: small ones are many.
    weight = np.array([size[0].max() for _, size in usable]) ** 0.6
    leader, size = usable[rng.choice(len(usable), p=weight / weight.sum())]
    reference, run = _slices(rng, size > 20, labelled, chain)
    if rng.random() < 0.5:  # the backward pass: the whole video reversed
        reference, run = reference[::-1].copy(), run[::-1].copy()
    if rng.random() < options.zoomed:
        elsewhere = [_is(x, leader) for x in others]
        if registered:
            regions = drawn_regions(rng, _is(labels[0], leader), elsewhere)
        else:
            regions = [drawn_region(rng, [_is(labels[0], leader), *elsewhere])] * 2
        field, views = None, [region.of(labels.shape[-2:]) for region in regions]
    else:
        field = field_around(rng, _is(labels[0, size[0].argmax()], leader))
        views = [drawn_field(rng, *field) for _ in range(2)]
    chosen = [leader, *_more_targets(rng, options.targets - 1, usable, leader, labels[0][:, views[0][0], views[0][1]])]

    change = change or str(rng.choice(CHANGES, p=options.changes))
    contrast = draw_contrast(rng, anatomy.tissues, distinct=distinct)
    contrasts = (contrast, related_contrast(rng, contrast, anatomy.tissues, change))
    flips = [axis for axis in (1, 2) if rng.random() < 0.5]
    transpose = rng.random() < 0.5

    def turned(drawn: torch.Tensor) -> torch.Tensor:
        """(T, n, rows, columns) as the sample is."""
        drawn = drawn.flip([axis + 1 for axis in flips]) if flips else drawn
        return drawn.mT if transpose else drawn

    def asked(structures: torch.Tensor, view: View) -> torch.Tensor:
        """Masks (T, n, rows, columns) of the targets, turned as the sample is."""
        seen = structures[:, view[0], view[1]]
        return turned(torch.stack([_is(seen, target) for target in chosen]))

    frames, masks, everything = [], [], []
    for subject, (slices, view) in enumerate(zip((reference, run), views, strict=True)):
        images = render(labels[subject], slices, contrasts[subject], rng)
        if resliced:
            images = as_coarse(images, subjects.labels.shape[1])
        structures = labels[subject][torch.from_numpy(slices)]
        drawn, structures = asked(structures, view), structures[:, view[0], view[1]]
        if field is not None:  # nothing else was scanned
            images, view = images[:, view[0], view[1]], EVERYTHING
        shown = to_frames(images, options.image_size, view)
        if flips:
            shown, structures = shown.flip([axis + 1 for axis in flips]), structures.flip(flips)
        if transpose:
            shown, structures = shown.mT, structures.mT
        frames.append(shown.contiguous())
        masks.append(resized(drawn, options.image_size))
        everything.append(coarse(structures, options.image_size))
    # Frames between a labelled slice and the chain's start: its own volume's end lies in between.
    scale = rng.uniform(0.5, 2.0)
    end = labels.shape[1] if reference[0] <= reference[-1] else -1
    distance = torch.tensor(np.abs(end - reference) * scale, dtype=torch.float32).round().clamp(min=1)
    if registered:
        voted = torch.stack([agreed(_is(others, target).float(), weights) for target in chosen])
        known = [turned(voted[:, :, views[1][0], views[1][1]])]
    else:
        known = [asked(labels[0], views[0])]
        known += [asked(other, views[0] if field is None else drawn_field(rng, *field)) for other in others]
    place = place_at(rng, known, run, options.image_size // 4, registered=registered)
    return torch.cat(frames), torch.cat(masks, dim=1), distance, torch.cat(everything), place


def _is(structures: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
    return torch.isin(structures, torch.tensor(target, dtype=torch.uint8))


def _more_targets(
    rng: np.random.Generator, count: int, usable: Sequence, leader: Sequence[int], seen: torch.Tensor
) -> list[Sequence[int]]:
    """Targets beside the leading one, by how much of them is to be seen (K, rows, columns)."""
    others = [candidate for candidate, _ in usable if candidate is not leader] or [leader]
    areas = torch.bincount(seen.flatten().int(), minlength=256).numpy()
    weight = np.array([1.0 + areas[list(candidate)].sum() for candidate in others]) ** 0.6
    picks = rng.choice(len(others), count, replace=len(others) < count, p=weight / weight.sum())
    return [others[i] for i in picks]


class Samples(IterableDataset):
    """An endless stream of :class:`Batch`, the same for the same seed, worker count and first batch."""

    def __init__(self, options: SampleOptions, seed: int, *, start: int = 0) -> None:
        self.options, self.seed, self.start = options, seed, start

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        rank, step = (worker.id, worker.num_workers) if worker else (0, 1)
        pool: deque[Subjects] = deque(maxlen=self.options.pool)
        self.phantoms = PhantomPool()
        index = self.start + rank
        while True:
            yield self._batch(named_rng(self.seed, "batch", index), pool, self._distinct(index))
            index += step

    def _distinct(self, index: int) -> float:
        first, last = self.options.distinct
        return first + (last - first) * min(1.0, index / self.options.easing)

    def _batch(self, rng: np.random.Generator, pool: deque[Subjects], distinct: float) -> Batch:
        options = self.options
        labelled, chain = options.shapes[rng.integers(len(options.shapes))]
        items = []
        while len(items) < options.batch:
            if rng.random() < options.phantoms:
                images, masks, distance, classes, known, run = self.phantoms.sample(
                    rng, options.targets, labelled, chain, resliced=options.resliced
                )
                view = EVERYTHING
                if rng.random() < options.zoomed:
                    view = drawn_region(rng, [x[0] for x in known]).of(known[0].shape[-2:])
                frames = torch.cat([to_frames(x, options.image_size, view) for x in images])
                masks, classes, known = ([x[..., view[0], view[1]] for x in some] for some in (masks, classes, known))
                masks = torch.cat([resized(x, options.image_size) for x in masks], 1)
                structures = torch.cat([coarse(x, options.image_size) for x in classes])
                place = place_at(rng, known, run, options.image_size // 4)
                items.append((frames, masks, distance, structures, place))
                continue
            fresh = len(pool) < options.batch or rng.random() < options.renewal
            if fresh:
                pool.append(draw_subjects(rng))
            subjects = pool[-1] if fresh else pool[rng.integers(len(pool))]
            item = draw_sample(rng, subjects, options, labelled, chain, distinct=bool(rng.random() < distinct))
            if item is not None:
                items.append(item)
        return Batch(*(torch.stack(part) for part in zip(*items, strict=True)), labelled)

"""A pseudo-label: what a method thinks the labels of an unlabelled case are, how sure it is, and where it came from."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from SSLSegLib import __version__
from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels.merging import MAXIMUM_ENTROPY, binary_entropy, keep_largest_components, merge_classes

__all__ = [
    "HARDLY_LIKELY",
    "NEIGHBOURHOOD_MM",
    "UNCERTAIN_ABOVE",
    "LabelScores",
    "PseudoLabel",
    "build_pseudo_label",
    "expected_dice",
    "make_provenance",
    "score_label",
]

NEIGHBOURHOOD_MM = 5.0
"""Uncertainty is averaged up to this far from the foreground: the sure background far away would only dilute it."""

UNCERTAIN_ABOVE = 0.5 * MAXIMUM_ENTROPY
"""A voxel counts as uncertain above half the largest entropy: 0.11 < p < 0.89."""

HARDLY_LIKELY = 0.05
"""Probabilities up to this one are not part of the volume that a structure is expected to have."""

_ROUNDING = 1e-5


@dataclass(frozen=True)
class LabelScores:
    """Numbers that say, without a reference, how far to trust a pseudo-label and where to look first.

    Attributes:
        mean_entropy: Mean uncertainty (nats, 0..ln 2) within :data:`NEIGHBOURHOOD_MM` of the foreground; over the whole
            volume when the label is empty.
        uncertain_fraction: The part of those voxels with an uncertainty above :data:`UNCERTAIN_ABOVE`, 0..1.
        most_uncertain_slice: Index (along K) of the slice with the largest sum of uncertainty.
        volume_ml: Millilitres of each class, by name.
        empty: True when no voxel of any class was found.
        expected_dice: Of each class that was found or likely anywhere, by name, see :func:`expected_dice`; nothing in
            results of earlier versions.
    """

    mean_entropy: float
    uncertain_fraction: float
    most_uncertain_slice: int
    volume_ml: dict[str, float]
    empty: bool
    expected_dice: dict[str, float] = field(default_factory=dict)

    @property
    def mean_expected_dice(self) -> float | None:
        """Over the classes that were found or likely; None where it is not known, or nothing was found at all."""
        if self.empty:
            return None
        return sum(self.expected_dice.values()) / len(self.expected_dice) if self.expected_dice else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`."""
        return cls(**values)


@dataclass(frozen=True, eq=False)
class PseudoLabel:
    """The result of pseudo-labelling one case. All arrays lie in the geometry of the case's image.

    Attributes:
        case_id: The case.
        probability: ``float32 (classes, K, J, I)`` in 0..1, in the order of the cohort's classes; the mean over runs.
        mask: ``uint8 (K, J, I)``, the classes' label values, 0 = background.
        uncertainty: ``float32 (K, J, I)`` in nats, 0..ln 2: the largest over classes of the binary entropy of the
            mean probability (total uncertainty, see the paper's code; not the disagreement of the runs).
        spread: ``float32 (K, J, I)`` in 0..0.5: the largest over classes of the standard deviation over the runs (their
            disagreement), or None when the method has no runs to compare.
        geometry: The image's geometry.
        provenance: Where the label came from, see :func:`make_provenance`.
        scores: See :class:`LabelScores`.
    """

    case_id: str
    probability: NDArray[np.float32]
    mask: NDArray[np.uint8]
    uncertainty: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    geometry: Geometry
    scores: LabelScores
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        grid = tuple(self.geometry.shape)
        shapes = {
            "probability": self.probability.shape[1:] if self.probability.ndim == 4 else self.probability.shape,
            "mask": self.mask.shape,
            "uncertainty": self.uncertainty.shape,
            "spread": grid if self.spread is None else self.spread.shape,
        }
        for name, shape in shapes.items():
            if shape != grid:
                raise CaseError(
                    f"The {name} has the shape {shape}, the image {grid}.",
                    case_id=self.case_id,
                    remedy="Pseudo-labels must be made on the grid of the case's image; report this as an error.",
                )


def build_pseudo_label(
    case_id: str,
    probability: NDArray[np.floating],
    geometry: Geometry,
    classes: Sequence[SegmentClass],
    *,
    variance: NDArray[np.floating] | None = None,
    threshold: float = 0.5,
    largest_component: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> PseudoLabel:
    """Merge class probabilities into a pseudo-label with its uncertainty and scores.

    Args:
        case_id: The case.
        probability: ``(classes, K, J, I)`` in 0..1, the mean over runs.
        geometry: Of the case's image.
        classes: The cohort's classes, in the order of the probabilities.
        variance: ``(classes, K, J, I)``, over runs, if there are several.
        threshold: See :func:`SSLSegLib.pseudolabels.merging.merge_classes`.
        largest_component: Keep the largest component of those classes that ask for it; False keeps all of all.
        provenance: See :func:`make_provenance`.

    Raises:
        CaseError: If the shapes disagree or a probability is not a number in 0..1.
    """
    probability = np.asarray(probability, dtype=np.float32)
    if probability.shape != (len(classes), *geometry.shape):
        raise CaseError(
            f"The probabilities have the shape {probability.shape}, expected {(len(classes), *geometry.shape)}.",
            case_id=case_id,
            remedy="Pseudo-labels must be made on the grid of the case's image; report this as an error.",
        )
    # A mean of single-precision sums may lie a rounding error outside; NaN fails both comparisons.
    if not (probability.min() >= -_ROUNDING and probability.max() <= 1.0 + _ROUNDING):
        raise CaseError(
            "The method gave probabilities that are not numbers between 0 and 1.",
            case_id=case_id,
            remedy="Run again with precision 'exact'; if it stays, the weights do not suit this image.",
        )
    probability = np.clip(probability, 0.0, 1.0)
    mask = merge_classes(probability, threshold, [each.value for each in classes])
    if largest_component:
        mask = keep_largest_components(mask, [each.value for each in classes if each.largest_component])
    uncertainty = binary_entropy(probability).max(axis=0)
    spread = None if variance is None else np.sqrt(np.clip(variance, 0.0, None)).max(axis=0).astype(np.float32)
    return PseudoLabel(
        case_id=case_id,
        probability=probability,
        mask=mask,
        uncertainty=uncertainty,
        spread=spread,
        geometry=geometry,
        scores=score_label(mask, probability, uncertainty, geometry, classes),
        provenance=dict(provenance or {}),
    )


def expected_dice(mask: NDArray[np.bool_], probability: NDArray[np.floating]) -> float:
    """The Dice that a mask has with the truth if each probability is right: 2 |p in the mask| / (|p| + |mask|).

    The expected overlap over the expected volumes. It depends neither on the size of a structure nor on the spacing,
    and ranks cases far better than their mean entropy (``docs/benchmarks.md``). Probability outside the mask counts
    against it: what the threshold, another class or the largest component took away; but not the little
    (:data:`HARDLY_LIKELY`) that networks leave everywhere, which in a large volume adds up to more than a structure.

    Args:
        mask: bool (K, J, I).
        probability: (K, J, I), 0 to 1.

    Returns:
        0 to 1; of an empty mask how likely nothing is there: 1 less the largest probability.
    """
    if not mask.any():
        return 1.0 - float(probability.max())
    likely = probability.sum(where=probability > HARDLY_LIKELY, dtype=np.float64)
    return float(2 * probability.sum(where=mask, dtype=np.float64) / (likely + np.count_nonzero(mask)))


def score_label(
    mask: NDArray[np.uint8],
    probability: NDArray[np.float32],
    uncertainty: NDArray[np.float32],
    geometry: Geometry,
    classes: Sequence[SegmentClass],
) -> LabelScores:
    """Score a label map by its probabilities and their uncertainty; no reference needed.

    Args:
        mask: ``uint8 (K, J, I)``.
        probability: ``float32 (classes, K, J, I)``.
        uncertainty: ``float32 (K, J, I)`` in nats.
        geometry: Of both.
        classes: Whose volumes to give.
    """
    nearby = uncertainty[_neighbourhood(mask != 0, geometry.spacing)]
    counts = np.bincount(mask.ravel(), minlength=256)
    millilitres_per_voxel = geometry.voxel_volume / 1000.0
    return LabelScores(
        mean_entropy=float(nearby.mean(dtype=np.float64)),
        uncertain_fraction=float(np.mean(nearby > UNCERTAIN_ABOVE)),
        most_uncertain_slice=int(uncertainty.sum(axis=(1, 2), dtype=np.float64).argmax()),
        volume_ml={each.name: float(counts[each.value]) * millilitres_per_voxel for each in classes},
        empty=not mask.any(),
        expected_dice={
            each.name: expected_dice(mask == each.value, of_class)
            for each, of_class in zip(classes, probability, strict=True)
            if counts[each.value] or of_class.any()  # no labelled case shows the class: nothing was looked for
        },
    )


def make_provenance(
    method: str,
    *,
    seed: int | None,
    labelled: Sequence[str],
    options: Mapping[str, Any],
    weights: str | None = None,
    weights_sha256: str | None = None,
) -> dict[str, Any]:
    """Where a pseudo-label came from, as plain values for JSON and for the tags of segments and nodes.

    Args:
        method: Such as ``TFFS-MedSAM2``.
        seed: From which all random draws follow.
        labelled: Ids of the labelled cases that served as templates.
        options: The method's options, JSON-serialisable.
        weights: Name of the model weights.
        weights_sha256: Their checksum.
    """
    return {
        "kind": "pseudo-label",
        "method": method,
        "weights": {"name": weights, "sha256": weights_sha256},
        "seed": seed,
        "labelled": list(labelled),
        "options": dict(options),
        "software": _software_versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _neighbourhood(foreground: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[slice, ...] | Any:
    """Index of the voxels within :data:`NEIGHBOURHOOD_MM` of the foreground; of all voxels when there is none."""
    if not foreground.any():
        return (slice(None),)
    reach = [int(np.ceil(NEIGHBOURHOOD_MM / step)) for step in spacing]
    box = tuple(
        slice(max(int(where.min()) - margin, 0), int(where.max()) + margin + 1)
        for where, margin in zip(np.nonzero(foreground), reach, strict=True)
    )
    near = np.zeros_like(foreground)
    near[box] = distance_transform_edt(~foreground[box], sampling=spacing) <= NEIGHBOURHOOD_MM
    return near


def _software_versions() -> dict[str, str]:
    versions = {"SSLSeg": __version__, "python": platform.python_version()}
    for package in ("torch", "sam2", "SimpleITK", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions

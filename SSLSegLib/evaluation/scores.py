"""Scores of a case against its reference, class by class, and their summary over cases."""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.errors import CaseError
from SSLSegLib.evaluation.metrics import EmptyDistance, dice, iou, miou_with_background, surface_distances
from SSLSegLib.files import atomic_path

__all__ = [
    "ALL_CLASSES",
    "METRICS",
    "CaseScores",
    "ClassScores",
    "Summary",
    "score_case",
    "summarise",
    "write_scores_csv",
    "write_summary_csv",
]

METRICS = ("dice", "iou", "miou_with_background", "hd_mm", "hd95_pooled_mm", "hd95_larger_mm", "assd_mm")
"""Every metric's column name: what it is, its variant, its unit."""

ALL_CLASSES = "mean of classes"


@dataclass(frozen=True)
class ClassScores:
    """One class of one case. Distances in mm; see :mod:`SSLSegLib.evaluation.metrics` for definitions.

    Attributes:
        class_name: The class.
        value: Its label value.
        dice: 0..1.
        iou: Foreground only, 0..1.
        miou_with_background: Mean of foreground's and background's IoU; not comparable with ``iou``.
        hd_mm: Hausdorff distance.
        hd95_pooled_mm: 95th percentile, both directions pooled.
        hd95_larger_mm: 95th percentile, the larger of the two directions.
        assd_mm: Average symmetric surface distance.
        volume_ml: Of the prediction.
        reference_volume_ml: Of the reference.
        empty: Which of the masks is empty: then Dice is 1 or 0 by rule and distances are 0, NaN or the diagonal.
    """

    class_name: str
    value: int
    dice: float
    iou: float
    miou_with_background: float
    hd_mm: float
    hd95_pooled_mm: float
    hd95_larger_mm: float
    assd_mm: float
    volume_ml: float
    reference_volume_ml: float
    empty: Literal["none", "both", "prediction", "reference"]


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        case_id: The case.
        classes: In the order of the cohort's classes.
    """

    case_id: str
    classes: tuple[ClassScores, ...]

    def mean(self, metric: str = "dice") -> float:
        """Mean of a metric over the classes, without those where it is NaN; NaN when that leaves none."""
        values = [value for each in self.classes if not math.isnan(value := getattr(each, metric))]
        return sum(values) / len(values) if values else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return {
            "case_id": self.case_id,
            "classes": [
                {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
                for row in map(asdict, self.classes)
            ],
        }


@dataclass(frozen=True)
class Summary:
    """One metric of one class over all cases.

    Attributes:
        class_name: The class, or :data:`ALL_CLASSES`: each case's mean over its classes.
        metric: One of :data:`METRICS`.
        mean: Over the counted cases; NaN when there is none, as all that follow.
        sd: Sample standard deviation (n - 1); NaN for fewer than two cases.
        median: Over the counted cases.
        minimum: Over the counted cases.
        maximum: Over the counted cases.
        counted: Number of cases in the mean.
        excluded: Number of cases left out because one of the masks is empty and there is no distance.
        both_empty: Number of counted cases where both masks are empty and the score is perfect by rule.
    """

    class_name: str
    metric: str
    mean: float
    sd: float
    median: float
    minimum: float
    maximum: float
    counted: int
    excluded: int
    both_empty: int


def score_case(
    case_id: str,
    prediction: LabelMap,
    reference: LabelMap,
    classes: Sequence[SegmentClass],
    empty: EmptyDistance = "nan",
) -> CaseScores:
    """Score a label map against its reference.

    Args:
        case_id: The case.
        prediction: In the reference's geometry.
        reference: The truth.
        classes: What to score; other label values count as background.
        empty: The distance when one of the masks is empty; see :mod:`SSLSegLib.evaluation.metrics`.

    Raises:
        CaseError: If the two are not in the same geometry: overlap and distances would be meaningless.
    """
    if not prediction.geometry.matches(reference.geometry):
        raise CaseError(
            "The prediction is not in the geometry of the reference: "
            f"{prediction.geometry.difference(reference.geometry)}.",
            case_id=case_id,
            remedy="Resample the prediction onto the reference's image (nearest neighbour) and score again.",
        )
    geometry = reference.geometry
    return CaseScores(
        case_id=case_id,
        classes=tuple(
            _score_class(prediction.array == each.value, reference.array == each.value, geometry, each, empty)
            for each in classes
        ),
    )


def _score_class(predicted, true, geometry, segment: SegmentClass, empty: EmptyDistance) -> ClassScores:
    distances = surface_distances(predicted, true, geometry.spacing, empty)
    voxels, true_voxels = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    which = {(False, False): "none", (True, True): "both", (True, False): "prediction", (False, True): "reference"}
    return ClassScores(
        class_name=segment.name,
        value=segment.value,
        dice=dice(predicted, true),
        iou=iou(predicted, true),
        miou_with_background=miou_with_background(predicted, true),
        hd_mm=distances.hausdorff(),
        hd95_pooled_mm=distances.hausdorff95("pooled"),
        hd95_larger_mm=distances.hausdorff95("larger"),
        assd_mm=distances.assd(),
        volume_ml=voxels * geometry.voxel_volume / 1000.0,
        reference_volume_ml=true_voxels * geometry.voxel_volume / 1000.0,
        empty=which[voxels == 0, true_voxels == 0],
    )


def summarise(cases: Sequence[CaseScores]) -> list[Summary]:
    """Summarise every metric of every class; with several classes also the mean of classes.

    Args:
        cases: All with the same classes.
    """
    if not cases:
        return []
    rows = []
    for index, named in enumerate(cases[0].classes):
        both_empty = sum(case.classes[index].empty == "both" for case in cases)
        for metric in METRICS:
            values = [getattr(case.classes[index], metric) for case in cases]
            rows.append(_summary(named.class_name, metric, values, both_empty))
    if len(cases[0].classes) > 1:
        both_empty = sum(all(each.empty == "both" for each in case.classes) for case in cases)
        rows += [_summary(ALL_CLASSES, metric, [case.mean(metric) for case in cases], both_empty) for metric in METRICS]
    return rows


def _summary(class_name: str, metric: str, values: Sequence[float], both_empty: int) -> Summary:
    counted = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    nan = float("nan")
    return Summary(
        class_name=class_name,
        metric=metric,
        mean=float(counted.mean()) if counted.size else nan,
        sd=float(counted.std(ddof=1)) if counted.size > 1 else nan,
        median=float(np.median(counted)) if counted.size else nan,
        minimum=float(counted.min()) if counted.size else nan,
        maximum=float(counted.max()) if counted.size else nan,
        counted=int(counted.size),
        excluded=len(values) - int(counted.size),
        both_empty=both_empty,
    )


def write_scores_csv(path: Path, cases: Sequence[CaseScores]) -> None:
    """Write one row per case and class. A distance that does not exist is an empty field."""
    columns = ["case", "class", "value", *METRICS, "volume_ml", "reference_volume_ml", "empty"]
    rows = []
    for case in cases:
        for each in case.classes:
            values = asdict(each) | {"case": case.case_id, "class": each.class_name}
            rows.append([_field(values[column]) for column in columns])
    _write_csv(path, columns, rows)


def write_summary_csv(path: Path, summaries: Sequence[Summary]) -> None:
    """Write one row per class and metric."""
    columns = ["class", "metric", "mean", "sd", "median", "minimum", "maximum", "counted", "excluded", "both_empty"]
    rows = [[_field((asdict(each) | {"class": each.class_name})[column]) for column in columns] for each in summaries]
    _write_csv(path, columns, rows)


def _field(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _write_csv(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(rows)

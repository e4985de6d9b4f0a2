"""The report of a job or an evaluation: one HTML page that carries its pictures, tables as CSV, pictures as PNG."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from SSLSegLib import __version__
from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.evaluation.figures import CaseView, case_figure, save_figure
from SSLSegLib.evaluation.overview import overview_figure
from SSLSegLib.evaluation.page import PAGE
from SSLSegLib.evaluation.scores import CaseScores, ClassScores, Summary, summarise, write_scores_csv, write_summary_csv
from SSLSegLib.files import write_text
from SSLSegLib.pseudolabels.label import LabelScores
from SSLSegLib.pseudolabels.ranking import rank_by_uncertainty

__all__ = ["ReportCase", "ReportSection", "write_report"]

_METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU (foreground)",
    "miou_with_background": "mIoU incl. background",
    "hd_mm": "HD (mm)",
    "hd95_pooled_mm": "HD95 pooled (mm)",
    "hd95_larger_mm": "HD95 larger (mm)",
    "assd_mm": "ASSD (mm)",
}
_EMPTY = {"none": "", "both": "both empty", "prediction": "nothing found", "reference": "not in the reference"}
_PICTURES = ("overview.png", "best.png", "median.png", "worst.png")


@dataclass(frozen=True)
class ReportCase:
    """A case as the report needs it. Its volumes are loaded only if it is one of those shown.

    Attributes:
        case_id: The case.
        view: Loads what the pictures need.
        scores: Against the reference, if there is one.
        label_scores: From the uncertainty, if there is one.
        review: The state of its review, if there is one.
    """

    case_id: str
    view: Callable[[], CaseView]
    scores: CaseScores | None = None
    label_scores: LabelScores | None = None
    review: str | None = None


@dataclass(frozen=True)
class ReportSection:
    """A part of the page that stands above the scores.

    Attributes:
        title: Its heading.
        body: HTML, everything in it escaped.
    """

    title: str
    body: Markup


def write_report(
    folder: Path,
    cases: Sequence[ReportCase],
    classes: Sequence[SegmentClass],
    *,
    title: str,
    kind: Literal["pseudo-label", "prediction"] = "pseudo-label",
    provenance: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    sections: Sequence[ReportSection] = (),
) -> Path:
    """Write ``report.html`` with ``scores.csv``, ``summary.csv`` and the pictures into a folder.

    Shown are the best, the median and the worst case: by Dice where there are references, else by uncertainty. The
    page needs no network and no other file.

    Args:
        folder: Made if missing; an earlier report in it is replaced.
        cases: At least one.
        classes: Of the cohort.
        title: Heading of the page.
        kind: What the label maps are.
        provenance: Listed on the page: how the label maps were made.
        notes: Sentences for the top of the page, such as cases left out.
        sections: Further parts of the page, above the scores.

    Returns:
        The path of ``report.html``.
    """
    if not cases:
        raise ValueError("A report needs at least one case.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*_PICTURES, "scores.csv", "summary.csv"):
        (folder / stale).unlink(missing_ok=True)

    scored = [case.scores for case in cases if case.scores is not None]
    summary = summarise(scored)
    if scored:
        write_scores_csv(folder / "scores.csv", scored)
        write_summary_csv(folder / "summary.csv", summary)

    pictures = []
    overview = overview_figure([(case.case_id, _dice(case), _expected(case)) for case in cases])
    if overview is not None and len(cases) > 1:
        save_figure(overview, folder / "overview.png")
        pictures.append(_picture(folder / "overview.png", "Dice of every case, and against the Dice that was expected"))
    for role, name, case in _shown(cases):
        figure = case_figure(case.view(), classes, f"{case.case_id}: {name}", _lines(case), kind)
        save_figure(figure, folder / f"{role}.png")
        pictures.append(_picture(folder / f"{role}.png", f"{case.case_id}: {name}"))

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = page.from_string(PAGE).render(
        title=title,
        kind=kind,
        notes=list(notes),
        sections=list(sections),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        pictures=pictures,
        summary=_summary_rows(summary),
        cases=_case_rows(cases, classes),
        has_scores=bool(scored),
        has_uncertainty=any(case.label_scores is not None for case in cases),
        has_review=any(case.review is not None for case in cases),
        provenance=_flat(provenance or {}),
    )
    write_text(folder / "report.html", content)
    return folder / "report.html"


def _shown(cases: Sequence[ReportCase]) -> list[tuple[str, str, ReportCase]]:
    """(file name, words, case) of the best, median and worst case; fewer when there are fewer cases."""
    scored = [case for case in cases if _dice(case) is not None]
    if scored:
        order = sorted(scored, key=lambda case: (-_dice(case), case.case_id))
        words = ("best", "median", "worst")
        value, measure = _dice, "Dice"
    else:
        ranked = [case for case in cases if case.label_scores is not None]
        first_to_review = rank_by_uncertainty({case.case_id: case.label_scores for case in ranked})
        by_id = {case.case_id: case for case in cases}
        order = [by_id[case_id] for case_id in reversed(first_to_review)] or list(cases)
        words = ("most certain", "median", "least certain") if ranked else ("first", "middle", "last")
        value, measure = _expected, "expected Dice"
    places = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    if len(order) < 3:
        places.pop("median")
    if len(order) < 2:
        places.pop("worst")
        words = ("the only case", "", "")
    names = dict(zip(("best", "median", "worst"), words, strict=True))

    def described(role: str, case: ReportCase) -> str:
        number = value(case)
        return names[role] if number is None else f"{names[role]}, {measure} {number:.3f}"

    return [(role, described(role, order[place]), order[place]) for role, place in places.items()]


def _dice(case: ReportCase) -> float | None:
    if case.scores is None:
        return None
    mean = case.scores.mean("dice")
    return None if math.isnan(mean) else mean


def _expected(case: ReportCase) -> float | None:
    return None if case.label_scores is None else case.label_scores.mean_expected_dice


def _lines(case: ReportCase) -> list[str]:
    """The scores beside a picture."""
    lines = []
    for each in (case.scores.classes if case.scores else ())[:3]:
        lines.append(each.class_name)
        lines.append(f"  Dice {each.dice:.3f}, IoU {each.iou:.3f}")
        if math.isnan(each.hd95_pooled_mm):
            lines.append(f"  no distance: {_EMPTY[each.empty]}")
        else:
            lines.append(f"  HD95 {each.hd95_pooled_mm:.1f} mm, ASSD {each.assd_mm:.2f} mm")
        lines.append(f"  {each.volume_ml:.1f} ml (reference {each.reference_volume_ml:.1f})")
    if case.label_scores is not None:
        if case.scores is None:
            lines += [f"{name}: {volume:.1f} ml" for name, volume in list(case.label_scores.volume_ml.items())[:6]]
        expected = _expected(case)
        if expected is not None:
            lines.append(f"expected Dice {expected:.2f}")
        lines.append(f"mean entropy {case.label_scores.mean_entropy:.3f}")
        lines.append(f"uncertain voxels {100 * case.label_scores.uncertain_fraction:.0f} %")
    return lines


def _summary_rows(summary: Sequence[Summary]) -> list[dict[str, Any]]:
    rows = []
    for each in summary:
        digits = 2 if each.metric.endswith("_mm") else 3
        rows.append(
            {
                "class": each.class_name,
                "metric": _METRIC_NAMES[each.metric],
                "mean": _number(each.mean, digits),
                "sd": _number(each.sd, digits),
                "median": _number(each.median, digits),
                "range": f"{_number(each.minimum, digits)} to {_number(each.maximum, digits)}",
                "counted": each.counted,
                "excluded": each.excluded,
                "both_empty": each.both_empty,
            }
        )
    return rows


def _case_rows(cases: Sequence[ReportCase], classes: Sequence[SegmentClass]) -> list[dict[str, Any]]:
    ranked = rank_by_uncertainty({case.case_id: case.label_scores for case in cases if case.label_scores is not None})
    look_first = {case_id: place + 1 for place, case_id in enumerate(ranked)}
    rows = []
    for case in cases:
        scores = {} if case.scores is None else {each.class_name: each for each in case.scores.classes}
        for number, segment in enumerate(classes):
            each = scores.get(segment.name)
            uncertainty = case.label_scores
            volume = each.volume_ml if each else uncertainty.volume_ml.get(segment.name) if uncertainty else None
            rows.append(
                {
                    "first": number == 0,
                    "span": len(classes),
                    "case": case.case_id,
                    "class": segment.name,
                    "dice": _number(each.dice, 3) if each else "–",
                    "iou": _number(each.iou, 3) if each else "–",
                    "hd": _number(each.hd_mm, 1) if each else "–",
                    "hd95": _number(each.hd95_pooled_mm, 1) if each else "–",
                    "hd95_larger": _number(each.hd95_larger_mm, 1) if each else "–",
                    "assd": _number(each.assd_mm, 2) if each else "–",
                    "volume": _number(volume, 1),
                    "reference_volume": _number(each.reference_volume_ml, 1) if each else "–",
                    "remark": _remark(each, uncertainty),
                    "expected": _number(uncertainty.expected_dice.get(segment.name) if uncertainty else None, 2),
                    "entropy": _number(uncertainty.mean_entropy if uncertainty else None, 3),
                    "uncertain": f"{100 * uncertainty.uncertain_fraction:.0f} %" if uncertainty else "–",
                    "slice": uncertainty.most_uncertain_slice if uncertainty else "–",
                    "look_first": look_first.get(case.case_id, "–"),
                    "review": case.review or "–",
                }
            )
    return rows


def _remark(scores: ClassScores | None, uncertainty: LabelScores | None) -> str:
    if scores is not None:
        return _EMPTY[scores.empty]
    return "nothing found" if uncertainty is not None and uncertainty.empty else ""


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _picture(path: Path, words: str) -> dict[str, str]:
    return {"name": path.name, "words": words, "data": base64.b64encode(path.read_bytes()).decode("ascii")}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as (name, text) pairs."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}: ")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            pairs.append((f"{prefix}{key}", text))
    return pairs

"""The command line's ``evaluate``."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.errors import SSLSegError

__all__ = ["evaluate", "parse_classes", "scores_table"]


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="A job folder, what `predict` wrote, or a folder of label files.")
    ],
    labels: Annotated[Path, typer.Argument(help="cohort.json, or a folder of label files with the same names.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", "--output", "-o", help="Folder for the report. Default: PREDICTIONS/evaluation."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="What to score, such as 1=liver,2=spleen. Default: from the cohort or files.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images for the pictures. Default: the cohort's.")
    ] = None,
    missed_is_diagonal: Annotated[
        bool,
        typer.Option(
            "--missed-is-diagonal",
            help="Where one mask is empty, take the image diagonal as the distance instead of leaving the case out.",
        ),
    ] = False,
) -> None:
    """Score predictions against references: tables as CSV and a report with pictures."""
    # Here, so that the help appears at once: pictures need matplotlib.
    from SSLSegLib.evaluation.folders import evaluate_folder
    from SSLSegLib.evaluation.reporting import report_evaluation

    output = output or predictions / "evaluation"
    if output.is_dir() and any(output.iterdir()) and not (output / "report.html").is_file():
        raise SSLSegError(
            f"The output folder {output} holds other files.", remedy="Name a new folder with --out, or empty it."
        )
    evaluation = evaluate_folder(
        predictions,
        labels,
        classes=parse_classes(classes) if classes else None,
        empty="diagonal" if missed_is_diagonal else "nan",
    )
    report = report_evaluation(evaluation, output, title=f"Evaluation of {predictions.resolve().name}", images=images)
    console = Console()
    console.print(scores_table(evaluation.cases, evaluation.summary))
    for case_ids, what in (
        (evaluation.without_reference, "not scored, no reference"),
        (evaluation.without_prediction, "in no average, no prediction"),
    ):
        if case_ids:
            console.print(f"[yellow]{what}:[/] {', '.join(case_ids)}")
    console.print(f"Report: {report}", soft_wrap=True)


def scores_table(cases, summary) -> Table:
    """A terminal table of case scores with the means below.

    Args:
        cases: :class:`~SSLSegLib.evaluation.scores.CaseScores` of each case.
        summary: What :func:`~SSLSegLib.evaluation.scores.summarise` gave for them.
    """
    table = Table(title="Scores (distances in mm)")
    table.add_column("case")
    table.add_column("class")
    for column in ("Dice", "IoU", "HD", "HD95 pooled", "HD95 larger", "ASSD"):
        table.add_column(column, justify="right")
    metrics = ("dice", "iou", "hd_mm", "hd95_pooled_mm", "hd95_larger_mm", "assd_mm")
    for case in cases:
        for each in case.classes:
            table.add_row(case.case_id, each.class_name, *(_cell(name, getattr(each, name)) for name in metrics))
    table.add_section()
    by_class: dict[str, dict] = {}
    for row in summary:
        by_class.setdefault(row.class_name, {})[row.metric] = row
    for class_name, rows in by_class.items():
        table.add_row("mean", class_name, *(_cell(name, rows[name].mean) for name in metrics), style="bold")
        if rows["hd_mm"].excluded:
            left_out = f"{rows['hd_mm'].excluded} left out"
            table.add_row("", class_name, "", "", left_out, left_out, left_out, left_out, style="yellow")
    return table


def parse_classes(text: str) -> tuple[SegmentClass, ...]:
    """Classes from ``1=liver,2=spleen``.

    Raises:
        SSLSegError: If the text is not of that form, or a value appears twice.
    """
    found = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:=\s*([^=;]+?)\s*)?", part)
        value = int(match[1]) if match else 0
        if not 1 <= value <= 255 or value in found:
            raise SSLSegError(
                f"'{part.strip()}' in --classes is no class.",
                remedy="Write VALUE=NAME,... with values 1 to 255, each once.",
            )
        found[value] = SegmentClass(value=value, name=match[2] or f"label {value}")
    return tuple(found.values())


def _cell(metric: str, value: float) -> str:
    return "–" if value != value else f"{value:.3f}" if metric in ("dice", "iou") else f"{value:.2f}"

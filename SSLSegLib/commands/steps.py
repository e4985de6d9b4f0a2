"""What the steps of a self-training brought, as tables in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from SSLSegLib.commands.shared import console, say

if TYPE_CHECKING:
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.selftraining.report import RoundReport

__all__ = ["print_rounds", "print_steps"]


def print_rounds(reports: "Sequence[RoundReport]") -> None:
    """The rounds of a self-training: what each was trained on, and how much labels still changed."""
    if not reports:
        return
    table = Table(title="Self-training", caption="Agreement: Dice between the labels before and after a round")
    for column in ("round", "trained on", "left out", "agreement", "to look at", "seconds"):
        table.add_column(column)
    for report in reports:
        flagged = [case for case, change in report.changes.items() if change.flagged]
        table.add_row(
            report.name,
            f"{len(report.labelled)} labelled + {len(report.trained)} pseudo-labelled",
            ", ".join(f"{case} ({why})" for case, why in report.left_out.items()) or "-",
            f"{report.agreement:.3f}",
            ", ".join(flagged) or "-",
            f"{report.seconds:.0f}",
        )
    console.print(table)


def print_steps(job: "Job", cohort: "Cohort") -> None:
    """The table of the report, and what it says."""
    from SSLSegLib.evaluation.rounds_report import findings, step_rows
    from SSLSegLib.jobs.ssl_medsam2 import first_label_sentences, score_steps

    stages, reports = score_steps(job, cohort)
    rows = step_rows(stages, reports)
    classes = list(dict.fromkeys(name for row in rows for name in row.by_class))
    table = Table(
        box=SIMPLE_HEAD,  # fits 80 columns without cutting the names of the steps
        pad_edge=False,
        padding=(0, 0, 0, 1),
        title=f"What each step brought on {cohort.name}",
        caption="Dice: overlap with the reference, 0 to 1; HD95 in mm.\n"
        "Agreement: Dice of the labels before and after a round.",
    )
    table.add_column("step", min_width=len("Self-training, round 1"))
    for name in ("scans", "Dice ± SD", *classes, "HD95", "agreement"):
        table.add_column(name, justify="right", no_wrap=name == "Dice ± SD")
    for group, heading in (("unlabelled", "On the unlabelled scans"), ("test", "On test scans that no step has seen")):
        of_group = [row for row in rows if row.group == group]
        if of_group:
            table.add_section()
            table.add_row(heading, style="bold")
        for row in of_group:
            spread = "" if row.spread is None else f" ± {row.spread:.3f}"
            table.add_row(
                row.step,
                str(row.scans or "–"),
                _number(row.dice) + spread,
                *(_number(row.by_class.get(name)) for name in classes),
                _number(row.hd95_mm, 1),
                _number(row.agreement),
            )
    console.print(table)
    for sentence in (*first_label_sentences(job), *findings(stages, reports)):
        say(sentence)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

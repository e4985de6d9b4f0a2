"""The part of a report that says what each step of a self-training brought, in words and numbers for a reader of scans.

The same rows go into the page and onto the terminal.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from SSLSegLib.evaluation.report import ReportSection
from SSLSegLib.evaluation.rounds import FIRST, Stage, plot_rounds, write_rounds_csv

if TYPE_CHECKING:
    from SSLSegLib.selftraining.report import RoundReport

__all__ = ["BASELINE", "FEW", "PICTURE", "StepRow", "findings", "rounds_section", "step_rows"]

BASELINE = "labelled only"
"""Name of the stage that is compared with: the same network without the unlabelled scans."""

FEW = 10
"""With fewer test scans than this, a difference is called an indication."""

PICTURE = "rounds.png"
_TABLE = "rounds.csv"


@dataclass(frozen=True)
class StepRow:
    """A line of the table. Numbers are None where there is nothing to score with.

    Attributes:
        group: ``unlabelled`` or ``test``: which scans were scored.
        step: What was done, in words.
        scans: How many were scored.
        dice: Mean over scans of the mean over classes.
        spread: Standard deviation over scans.
        by_class: Class -> mean Dice.
        hd95_mm: Mean over scans of HD95 (pooled), where it exists.
        agreement: Of a round: Dice of its labels with those it was trained on.
    """

    group: str
    step: str
    scans: int
    dice: float | None
    spread: float | None
    by_class: dict[str, float]
    hd95_mm: float | None
    agreement: float | None = None


def step_rows(stages: Sequence[Stage], reports: Sequence["RoundReport"]) -> list[StepRow]:
    """The table: scans that took part first, then those that no step has seen.

    Args:
        stages: From :func:`SSLSegLib.evaluation.rounds.score_rounds`; empty without references.
        reports: Of the finished rounds, for their agreement.
    """
    final = reports[-1].name if reports else ""
    scored = {(stage.group, stage.name): stage for stage in stages}
    first = scored.get(("unlabelled", "pseudo-labels"))
    rows = [_row("unlabelled", "Pseudo-labels (TFFS-MedSAM2, no training)", first)]
    if mixed := scored.get(("unlabelled", FIRST)):
        rows.append(_row("unlabelled", "First labels of the training (with networks of the labelled scans)", mixed))
    for report in reports:
        words = f"Self-training, {report.name}"
        rows.append(_row("unlabelled", words, scored.get(("unlabelled", report.name)), report.agreement))
    models = {
        final: f"Final model (average of the networks of {final})",
        BASELINE: "For comparison: the same network, trained on the labelled scans only",
    }
    rows += [_row("test", models.get(stage.name, stage.name), stage) for stage in stages if stage.group == "test"]
    return rows


def findings(stages: Sequence[Stage], reports: Sequence["RoundReport"]) -> list[str]:
    """What the table says, in sentences; differences are between means over the same scans."""
    said = []
    final = reports[-1].name if reports else ""
    of = {(stage.group, stage.name): stage for stage in stages}
    before, after = of.get(("unlabelled", "pseudo-labels")), of.get(("unlabelled", final))
    if before and after:
        said.append(
            f"Self-training took the labels of the unlabelled scans from Dice {before.dice:.3f} to {after.dice:.3f} "
            f"({after.dice - before.dice:+.3f}; {_better(before, after)})."
        )
    alone, model = of.get(("test", BASELINE)), of.get(("test", final))
    if alone and model:
        said.append(
            f"On scans that no step has seen, the final model reaches Dice {model.dice:.3f}; the same network trained "
            f"on the labelled scans only reaches {alone.dice:.3f}. The unlabelled scans made a difference of "
            f"{model.dice - alone.dice:+.3f} ({_better(alone, model)})."
        )
        if len(model.cases) < FEW:
            said.append(f"So few test scans ({len(model.cases)}) give an indication, not proof.")
    left_out = reports[-1].left_out if reports else {}
    if left_out:
        named = ", ".join(f"{case} ({why})" for case, why in sorted(left_out.items()))
        said.append(f"Labelled anew, but not trained on in the last round: {named}.")
    flagged = [case for case, change in (reports[-1].changes if reports else {}).items() if change.flagged]
    if flagged:
        said.append(f"The last round changed these scans a lot, look at them first: {', '.join(sorted(flagged))}.")
    if not stages:
        said.append("No scan has a reference, so nothing could be scored. Agreement says how much labels still change.")
    return said


def rounds_section(
    folder: Path, stages: Sequence[Stage], reports: Sequence["RoundReport"], *, remarks: Sequence[str] = ()
) -> ReportSection:
    """Write the table (``rounds.csv``) and the picture (``rounds.png``) into a folder; return the part of the page.

    Args:
        folder: Of the report.
        stages: Scores of each step.
        reports: Of the finished rounds.
        remarks: Sentences below the table, such as how it was trained.
    """
    rows = step_rows(stages, reports)
    picture = ""
    if stages:
        write_rounds_csv(Path(folder) / _TABLE, stages)
        plot_rounds(Path(folder) / PICTURE, stages, "Dice and agreement, step by step")
        picture = base64.b64encode((Path(folder) / PICTURE).read_bytes()).decode("ascii")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    body = page.from_string(_BODY).render(
        groups=[(heading, [row for row in rows if row.group == group]) for group, heading in _GROUPS.items()],
        classes=list(dict.fromkeys(name for row in rows for name in row.by_class)),
        number=_number,
        findings=findings(stages, reports),
        remarks=list(remarks),
        picture=picture,
    )
    return ReportSection("What each step brought", Markup(body))


_GROUPS = {
    "unlabelled": "Unlabelled scans: they took part without their references, which only score here",
    "test": "Test scans: no step has seen them",
}


def _row(group: str, step: str, stage: Stage | None, agreement: float | None = None) -> StepRow:
    if stage is None:
        return StepRow(group, step, 0, None, None, {}, None, agreement)
    by_class = {
        each.class_name: float(np.mean([case.classes[index].dice for case in stage.cases]))
        for index, each in enumerate(stage.cases[0].classes)
    }
    distances = [case.mean("hd95_pooled_mm") for case in stage.cases]
    known = [distance for distance in distances if not math.isnan(distance)]
    return StepRow(
        group,
        step,
        len(stage.cases),
        stage.dice,
        None if math.isnan(stage.spread) else stage.spread,
        by_class,
        float(np.mean(known)) if known else None,
        agreement,
    )


def _better(before: Stage, after: Stage) -> str:
    earlier = {case.case_id: case.mean("dice") for case in before.cases}
    pairs = [(earlier[case.case_id], case.mean("dice")) for case in after.cases if case.case_id in earlier]
    return f"better in {sum(new > old for old, new in pairs)} of {len(pairs)} scans"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


_BODY = """<div class="notes">
{% for sentence in findings %}
<p>{{ sentence }}</p>
{% endfor %}
</div>
<div class="scroll"><table>
<tr><th class="text">step</th><th>scans<br>scored</th><th>Dice<br>mean of classes</th><th>SD<br>over scans</th>
{% for name in classes %}
<th>Dice<br>{{ name }}</th>
{% endfor %}
<th>HD95<br>mm</th><th>agreement with<br>the labels before</th></tr>
{% for heading, rows in groups if rows %}
<tr class="group"><td class="text" colspan="{{ 6 + classes | length }}">{{ heading }}</td></tr>
{% for row in rows %}
<tr><td class="text wrap">{{ row.step }}</td><td>{{ row.scans or "–" }}</td><td>{{ number(row.dice) }}</td>
<td>{{ number(row.spread) }}</td>
{% for name in classes %}
<td>{{ number(row.by_class.get(name)) }}</td>
{% endfor %}
<td>{{ number(row.hd95_mm, 1) }}</td><td>{{ number(row.agreement) }}</td></tr>
{% endfor %}
{% endfor %}
</table></div>
{% if picture %}
<figure>
<img src="data:image/png;base64,{{ picture }}" alt="Dice and agreement, step by step">
<figcaption>Dice and agreement, step by step; bars are one standard deviation over scans (rounds.png)</figcaption>
</figure>
{% endif %}
<ul class="small">
<li><b>Dice</b>: overlap with the reference, 0 (none) to 1 (the same). <b>HD95</b>: 95 of 100 points of the contours lie
closer to the other contour than this; smaller is better; scans where a structure was missed entirely have none.</li>
<li><b>Agreement</b>: Dice between the labels before and after a round. Near 1 the labels have stopped changing; that
does not say that they are right.</li>
{% for remark in remarks %}
<li>{{ remark }}</li>
{% endfor %}
</ul>
"""

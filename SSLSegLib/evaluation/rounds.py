"""What each stage of a self-training is worth: pseudo-labels, rounds, final model, and the labelled-only baseline.

Only cases with a reference can be scored; the rounds themselves never see one. Unlabelled and test cases are kept
apart: the first say how the labels improve, the second what the model does with scans that nobody trained on.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.reading import read_label, read_label_file
from SSLSegLib.evaluation.figures import save_figure
from SSLSegLib.evaluation.scores import CaseScores, score_case
from SSLSegLib.files import atomic_path

__all__ = ["FIRST", "Stage", "plot_rounds", "score_folder", "score_rounds", "write_rounds_csv"]

_AHEAD = "pseudo-labels"

FIRST = "first labels"
"""Name of the stage between pseudo-labels and round 1, where round 1 was not trained on the pseudo-labels as given."""


@dataclass(frozen=True)
class Stage:
    """The scores of one stage on one group of cases.

    Args:
        name: ``pseudo-labels``, ``first labels``, ``round 1``, ..., ``labelled only``.
        group: Which cases were scored.
        cases: Scores of those with a reference and a prediction.
        agreement: Of a round, with the labels it was trained on; None elsewhere.
    """

    name: str
    group: Literal["unlabelled", "test"]
    cases: tuple[CaseScores, ...]
    agreement: float | None = None

    @property
    def dice(self) -> float:
        """Mean over cases of the mean over classes; NaN without cases."""
        return float(np.mean([case.mean("dice") for case in self.cases])) if self.cases else float("nan")

    @property
    def spread(self) -> float:
        """Standard deviation over cases; NaN for fewer than two."""
        return (
            float(np.std([case.mean("dice") for case in self.cases], ddof=1)) if len(self.cases) > 1 else float("nan")
        )


def score_folder(cohort: Cohort, cases: Sequence[Case], files: Mapping[str, Path]) -> tuple[CaseScores, ...]:
    """Score label files against the references of their cases; cases without either are left out.

    Args:
        cohort: For classes and references.
        cases: Whose.
        files: Case id -> label file.

    Raises:
        CaseError: When a file cannot be read or lies in another grid than its reference.
    """
    return tuple(
        score_case(
            case.id,
            read_label_file(files[case.id], cohort.classes, case_id=case.id),
            read_label(cohort, case, "reference"),
            cohort.classes,
        )
        for case in cases
        if case.reference is not None and case.id in files and files[case.id].is_file()
    )


def score_rounds(
    cohort: Cohort, results: Mapping[str, Path], work: Path, predictions: Mapping[str, Path] | None = None
) -> list[Stage]:
    """Score every finished stage of a self-training.

    Args:
        cohort: Its unlabelled and test cases may have references.
        results: Unlabelled case -> folder of its pseudo-label.
        work: Folder of the self-training.
        predictions: Stage name (``round 1``, ..., ``labelled only``) -> folder with ``<case id>/labels.nii.gz`` of the
            test cases, see :func:`SSLSegLib.selftraining.predict.predict_cases`.

    Returns:
        Stages in the order in which they came about, unlabelled cases first.
    """
    from SSLSegLib.selftraining.folders import WorkFolder
    from SSLSegLib.selftraining.report import read_report

    folder = WorkFolder(Path(work))
    first = {case: path / "labels.nii.gz" for case, path in results.items()}
    stages = [Stage(_AHEAD, "unlabelled", score_folder(cohort, cohort.unlabelled, first))]
    mixed = {case.id: folder.first.predictions / f"{case.id}.nii.gz" for case in cohort.unlabelled}
    stages.append(Stage(FIRST, "unlabelled", score_folder(cohort, cohort.unlabelled, mixed)))
    for number in folder.finished_rounds():
        of_round = folder.round(number)
        files = {case.id: of_round.predictions / f"{case.id}.nii.gz" for case in cohort.unlabelled}
        scores = score_folder(cohort, cohort.unlabelled, files)
        stages.append(Stage(f"round {number}", "unlabelled", scores, read_report(of_round.report).agreement))
    for name, path in (predictions or {}).items():
        files = {case.id: Path(path) / case.id / "labels.nii.gz" for case in cohort.test}
        stages.append(Stage(name, "test", score_folder(cohort, cohort.test, files)))
    return [stage for stage in stages if stage.cases]


def write_rounds_csv(path: Path, stages: Sequence[Stage]) -> None:
    """One row a stage: mean Dice over cases, its standard deviation, the Dice of each class, agreement."""
    classes = [each.class_name for each in stages[0].cases[0].classes] if stages else []
    with atomic_path(Path(path)) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["stage", "cases", "count", "dice", "sd", *(f"dice {name}" for name in classes), "agreement"])
        for stage in stages:
            by_class = [np.mean([case.classes[index].dice for case in stage.cases]) for index in range(len(classes))]
            numbers = [stage.dice, stage.spread, *by_class]
            row = [stage.name, stage.group, len(stage.cases), *(f"{number:.4f}" for number in numbers)]
            table.writerow([*row, "" if stage.agreement is None else f"{stage.agreement:.4f}"])


def plot_rounds(path: Path, stages: Sequence[Stage], title: str = "Self-training") -> None:
    """Draw Dice and agreement over the rounds; the labelled-only baseline as a line to be above.

    Args:
        path: Of the picture (``.png``, ``.svg``).
        stages: From :func:`score_rounds`.
        title: Of the picture.
    """
    place = {
        name: index for index, name in enumerate(dict.fromkeys(s.name for s in stages if s.name != "labelled only"))
    }
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for group, colour, marker in (("unlabelled", "tab:blue", "o"), ("test", "tab:orange", "s")):
        shown = [stage for stage in stages if stage.group == group and stage.name in place]
        if shown:
            axes.errorbar(
                [place[stage.name] for stage in shown],
                [stage.dice for stage in shown],
                yerr=np.nan_to_num([stage.spread for stage in shown]),
                color=colour,
                marker=marker,
                capsize=3,
                label=f"Dice, {group} cases",
            )
    agreed = [stage for stage in stages if stage.agreement is not None]
    if agreed:
        axes.plot(
            [place[stage.name] for stage in agreed],
            [stage.agreement for stage in agreed],
            color="tab:green",
            linestyle="--",
            marker="^",
            label="agreement with the labels before",
        )
    for stage in stages:
        if stage.name == "labelled only":
            axes.axhline(stage.dice, color="grey", linestyle=":", label="Dice of labelled only, test cases")
    axes.set_xticks(list(place.values()), list(place))
    axes.set_ylabel("mean over cases and classes")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_figure(figure, Path(path))

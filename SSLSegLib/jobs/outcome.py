"""What a job leaves for people: the report with tables and pictures, the scores, and the MRML scene."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import SSLSegError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.progress import Progress

if TYPE_CHECKING:
    from SSLSegLib.evaluation.scores import CaseScores

__all__ = ["MOST_CASES_IN_SCENE", "score_results", "write_job_report", "write_job_scene"]

MOST_CASES_IN_SCENE = 24
"""A scene holds all its volumes in memory, here and where it is opened; larger cohorts show the first so many cases."""


def score_results(job: Job, cohort: Cohort) -> list["CaseScores"]:
    """Scores of the finished results whose cases have a reference, in the cohort's order."""
    from SSLSegLib.cases.reading import read_label, read_label_file
    from SSLSegLib.evaluation.scores import score_case
    from SSLSegLib.pseudolabels.storage import LABELS

    scores = []
    for case in cohort.unlabelled:
        if case.reference is not None and job.has_result(case.id):
            path = job.result_folder(case.id) / LABELS
            prediction = read_label_file(path, cohort.classes, case_id=case.id)
            scores.append(score_case(case.id, prediction, read_label(cohort, case, "reference"), cohort.classes))
    return scores


def write_job_report(job: Job, cohort: Cohort, progress: Progress) -> Path:
    """Tables and pictures of all results, scored where a reference is known."""
    from SSLSegLib.evaluation.reporting import report_results

    path, _ = report_results(job.folder, cohort, job.report, progress=_as_stage(progress, "Writing the report"))
    return path


def write_job_scene(job: Job, cohort: Cohort, progress: Progress) -> Path | None:
    """The results as ``scene.mrb``; a warning instead where Slicer's Python packages are missing or cannot write it."""
    from SSLSegLib.scene.files import write_scene

    cases = [case.id for case in (*cohort.unlabelled, *cohort.labelled)]
    if len(cases) > MOST_CASES_IN_SCENE:
        progress("warning", message=f"The scene shows the first {MOST_CASES_IN_SCENE} of {len(cases)} cases.")
    chosen = cases[:MOST_CASES_IN_SCENE]
    try:
        results = job.folder / "results"
        told = _as_stage(progress, "Writing the scene")
        return write_scene(job.folder / "scene.mrb", cohort, results, cases=chosen, progress=told)
    except SSLSegError as error:
        progress("warning", message=f"No scene was written: {error}")
        return None


def _as_stage(progress: Progress, stage: str) -> Progress:
    """The same listener, hearing the stage of a room under a name for people."""

    def tell(event: str, **fields: Any) -> None:
        progress(event, **({**fields, "stage": stage} if "stage" in fields else fields))

    return tell

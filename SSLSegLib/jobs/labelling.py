"""What jobs that label a cohort share: their parameters, the checks before work starts, and the labelling itself.

A kind of job says what it needs and how it labels a case; which cases are finished, what is outdated, where results go
and what comes after them is said here, once for all kinds.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import refuse_changed_inputs
from SSLSegLib.jobs.outcome import write_job_report, write_job_scene
from SSLSegLib.processes import usable_cores
from SSLSegLib.progress import Progress

if TYPE_CHECKING:
    from SSLSegLib.pseudolabels.label import PseudoLabel

__all__ = ["CohortParameters", "Labelling", "Threads", "check_cases", "label_cases", "threads_here"]

Threads = Annotated[int, Field(ge=1, le=1024)]
"""On the CPU; part of a manifest because the order of sums depends on it in the last bit."""


def threads_here() -> int:
    """Threads to compute with here: ``OMP_NUM_THREADS``, else the cores this process may use."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    return usable_cores()


class CohortParameters(BaseModel):
    """What the parameters of every job that labels a cohort begin with.

    They end with ``threads``, ``report`` and ``scene``. Each kind declares these after its own, since a manifest holds
    its parameters in the order of their declaration.

    Args:
        cohort: A cohort as in ``cohort.json``, with absolute paths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: dict[str, Any]

    if TYPE_CHECKING:
        threads: Threads
        report: bool
        scene: bool

    def loaded_cohort(self) -> Cohort:
        """The cohort as an object.

        Raises:
            CohortError: It is not a valid cohort.
        """
        return Cohort.from_dict(self.cohort, Path.cwd())


def check_cases(job: Job, progress: Progress, require: Callable[[Cohort], object] | None = None) -> None:
    """Everything about the cases of a job that can be known to fail before work starts.

    Args:
        job: Its parameters are :class:`CohortParameters`.
        progress: Hears the stage.
        require: Raises when the cohort lacks what the kind needs; by default a labelled and an unlabelled case.

    Raises:
        JobError: An input has changed since the job was made.
        CohortError, CaseError: The cohort or one of its files cannot be used.
    """
    from SSLSegLib.cases.preflight import check_cohort, raise_on_errors

    progress("stage", stage="Checking the cases", total=None)
    refuse_changed_inputs(job.manifest)
    cohort = job.manifest.checked_parameters().loaded_cohort()
    if require is None:
        cohort.require(labelled=1, unlabelled=1)
    else:
        require(cohort)
    if job.state().checked:  # by an earlier run, and nothing has changed since
        return
    findings = check_cohort(cohort, output=job.folder)
    for finding in findings:
        logging.getLogger("SSLSegLib").info("%s", finding)
    raise_on_errors(findings)


class Labelling:
    """The cases that a job labels: which wait, which are finished, and where the result of each goes.

    Args:
        job: Whose folder takes the results.
        cohort: Where the cases come from.
        cases: All that the job labels, finished ones too.
        progress: Listener.
    """

    def __init__(self, job: Job, cohort: Cohort, cases: Sequence[Case], progress: Progress) -> None:
        self.job, self.cohort, self.cases, self.progress = job, cohort, cases, progress
        self._done = set(job.finished([case.id for case in cases]))

    def finished(self) -> list[str]:
        """Ids of the cases whose results are there by now."""
        return [case.id for case in self.cases if case.id in self._done]

    def waiting(self) -> list[Case]:
        """The cases still to be labelled."""
        return [case for case in self.cases if case.id not in self._done]

    def keep(self, label: "PseudoLabel") -> None:
        """Take a result into the job folder, dated like the manifest so that it always gives the same bytes.

        Raises:
            JobError: The disk may not hold it.
        """
        from SSLSegLib.jobs.room import require_disk
        from SSLSegLib.pseudolabels.storage import save_pseudo_label

        label = dataclasses.replace(label, provenance={**label.provenance, "date": self.job.manifest.created})
        require_disk(self.job.folder, label.probability.nbytes + 4 * label.uncertainty.nbytes)
        with self.job.new_result(label.case_id) as folder:
            save_pseudo_label(folder, label, self.cohort.classes)
        self.count(label.case_id)

    def count(self, case_id: str) -> None:
        """Count a case whose result has been written as finished, and say how many are."""
        self._done.add(case_id)
        self.progress("cases", done=len(self._done), total=len(self.cases))


def label_cases(
    job: Job,
    cohort: Cohort,
    cases: Sequence[Case],
    label: Callable[[Labelling], None],
    progress: Progress,
    *,
    prepared: bool = True,
) -> None:
    """Label what is not labelled yet, then write the report and the scene; what is there and valid is kept.

    Args:
        job: Its parameters are :class:`CohortParameters`.
        cohort: The job's.
        cases: Those to be labelled.
        label: Labels those that wait; not called where nothing is left to do.
        progress: Listener.
        prepared: Whether all that ``label`` leaves beside the results is there too.
    """
    labelling = Labelling(job, cohort, cases, progress)
    finished = labelling.finished()
    progress("cases", done=len(finished), total=len(cases))
    for case_id in finished:
        progress("result", case=case_id, resumed=True)
    report, scene = job.report / "report.html", job.folder / "scene.mrb"
    if labelling.waiting() or not prepared:
        for outdated in (report, scene):
            outdated.unlink(missing_ok=True)
        label(labelling)
    parameters: CohortParameters = job.manifest.checked_parameters()  # type: ignore[assignment]
    if parameters.report and cases and not report.exists():
        write_job_report(job, cohort, progress)
    if parameters.scene and cohort.unlabelled and not scene.exists():
        write_job_scene(job, cohort, progress)

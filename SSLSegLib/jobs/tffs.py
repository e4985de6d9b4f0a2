"""The first kind of job: pseudo-labels for every unlabelled case of a cohort by TFFS-MedSAM2."""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import cohort_inputs, refuse_changed_inputs, with_absolute_paths
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.manifest import InputFile, Manifest
from SSLSegLib.jobs.outcome import write_job_report, write_job_scene
from SSLSegLib.processes import usable_cores
from SSLSegLib.progress import Progress
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.weights.store import weights_file

if TYPE_CHECKING:
    from SSLSegLib.pseudolabels.label import PseudoLabel

__all__ = ["KIND", "TffsParameters", "tffs_manifest", "threads_here"]


class TffsParameters(BaseModel):
    """Parameters of a ``tffs`` manifest.

    Args:
        cohort: A cohort as in ``cohort.json``, with absolute paths.
        weights: Name in the catalogue, or path of a file.
        options: Of the method.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        threads: On the CPU; part of the manifest because the order of sums depends on it in the last bit.
        report: Write tables and pictures.
        scene: Write an MRML scene where a Slicer is at hand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: dict[str, Any]
    weights: str
    options: TffsOptions = TffsOptions()
    device: str = "auto"
    threads: int = Field(default=1, ge=1, le=1024)
    report: bool = True
    scene: bool = True

    def loaded_cohort(self) -> Cohort:
        """The cohort as an object.

        Raises:
            CohortError: It is not a valid cohort.
        """
        return Cohort.from_dict(self.cohort, Path.cwd())


def tffs_manifest(
    cohort: Cohort,
    weights: str,
    options: TffsOptions,
    *,
    seed: int = 42,
    device: str = "auto",
    threads: int | None = None,
    report: bool = True,
    scene: bool = True,
) -> Manifest:
    """Write down a run: its files with their checksums, parameters, seed and software.

    Raises:
        SSLSegError: Weights or files of a case are missing.
    """
    parameters = TffsParameters(
        cohort=with_absolute_paths(cohort).to_dict(),
        weights=weights,
        options=options,
        device=device,
        threads=threads or threads_here(),
        report=report,
        scene=scene,
    )
    inputs = {"weights": InputFile.of(weights_file(weights)), **cohort_inputs(cohort)}
    return Manifest(kind="tffs", seed=seed, parameters=parameters.model_dump(mode="json"), inputs=inputs)


def threads_here() -> int:
    """Threads to compute with here: ``OMP_NUM_THREADS``, else the cores this process may use."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    return usable_cores()


def preflight(job: Job, progress: Progress) -> None:
    """Everything that can be known to fail before work starts."""
    from SSLSegLib.cases.preflight import check_cohort, raise_on_errors

    progress("stage", stage="Checking the cases", total=None)
    refuse_changed_inputs(job.manifest)
    cohort = job.manifest.checked_parameters().loaded_cohort()
    cohort.require(labelled=1, unlabelled=1)
    if job.state().checked:  # by an earlier run, and nothing has changed since
        return
    findings = check_cohort(cohort, output=job.folder)
    for finding in findings:
        logging.getLogger("SSLSegLib").info("%s", finding)
    raise_on_errors(findings)


def run(job: Job, progress: Progress) -> None:
    """Pseudo-label what is not finished yet, then write the report and the scene."""
    parameters: TffsParameters = job.manifest.checked_parameters()
    cohort = parameters.loaded_cohort()
    case_ids = [case.id for case in cohort.unlabelled]
    finished = job.finished(case_ids)
    progress("cases", done=len(finished), total=len(case_ids))
    for case_id in finished:
        progress("result", case=case_id, resumed=True)
    report, scene = job.report / "report.html", job.folder / "scene.mrb"
    if len(finished) < len(case_ids):
        for outdated in (report, scene):
            outdated.unlink(missing_ok=True)
        _segment(job, cohort, finished, progress)
    if parameters.report and not report.exists():
        write_job_report(job, cohort, progress)
    if parameters.scene and not scene.exists():
        write_job_scene(job, cohort, progress)


def result_sink(
    job: Job, cohort: Cohort, finished: Sequence[str], progress: Progress
) -> "Callable[[PseudoLabel], None]":
    """Takes each pseudo-label into the job folder, dated like the manifest so that it always gives the same bytes."""
    from SSLSegLib.jobs.estimate import require_disk
    from SSLSegLib.pseudolabels.storage import save_pseudo_label

    told = _counter(finished, len(cohort.unlabelled), progress)

    def keep(label: "PseudoLabel") -> None:
        label = dataclasses.replace(label, provenance={**label.provenance, "date": job.manifest.created})
        require_disk(job.folder, label.probability.nbytes + 4 * label.uncertainty.nbytes)
        with job.new_result(label.case_id) as folder:
            save_pseudo_label(folder, label, cohort.classes)
        told(label.case_id)

    return keep


def _counter(finished: Sequence[str], total: int, progress: Progress) -> Callable[[str], None]:
    done = set(finished)

    def told(case_id: str) -> None:
        done.add(case_id)
        progress("cases", done=len(done), total=total)

    return told


def _segment(job: Job, cohort: Cohort, finished: list[str], progress: Progress) -> None:
    from SSLSegLib.jobs.cluster_cases import segment_on_cluster
    from SSLSegLib.jobs.schedulers import is_local
    from SSLSegLib.jobs.segmenting import Segmenter

    def waiting() -> list[str]:
        return [case.id for case in cohort.unlabelled if not job.has_result(case.id)]

    if not is_local(job.scheduler):
        segment_on_cluster(job, waiting(), _counter(finished, len(cohort.unlabelled), progress), progress)
        return
    progress("stage", stage="Loading the weights", total=None)
    segmenter = Segmenter(job.manifest, progress, cpu_allowed=job.cpu_if_needed)
    segmenter.estimate(job.folder, progress, skip=finished)
    with job.scratch() as scratch:
        counts = segmenter.segment(waiting, result_sink(job, cohort, finished, progress), progress, scratch=scratch)
    progress("metric", **dataclasses.asdict(counts))


KIND = JobKind("tffs", TffsParameters, preflight, run, on_clusters=True)

"""The first kind of job: pseudo-labels for every unlabelled case of a cohort by TFFS-MedSAM2."""

import dataclasses

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import cohort_inputs, with_absolute_paths
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.labelling import CohortParameters, Labelling, Threads, check_cases, label_cases, threads_here
from SSLSegLib.jobs.manifest import InputFile, Manifest
from SSLSegLib.progress import Progress
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.weights.store import lasting_name, weights_file

__all__ = ["KIND", "TffsParameters", "tffs_manifest"]


class TffsParameters(CohortParameters):
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

    weights: str
    options: TffsOptions = TffsOptions()
    device: str = "auto"
    threads: Threads = 1
    report: bool = True
    scene: bool = True


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
        weights=lasting_name(weights),
        options=options,
        device=device,
        threads=threads or threads_here(),
        report=report,
        scene=scene,
    )
    inputs = {"weights": InputFile.of(weights_file(weights)), **cohort_inputs(cohort)}
    return Manifest(kind="tffs", seed=seed, parameters=parameters.model_dump(mode="json"), inputs=inputs)


def run(job: Job, progress: Progress) -> None:
    """Pseudo-label what is not finished yet, then write the report and the scene."""
    cohort = job.manifest.checked_parameters().loaded_cohort()
    label_cases(job, cohort, cohort.unlabelled, _label, progress)


def _label(labelling: Labelling) -> None:
    from SSLSegLib.jobs.cluster_cases import segment_on_cluster
    from SSLSegLib.jobs.schedulers import is_local
    from SSLSegLib.jobs.segmenting import Segmenter

    def waiting() -> list[str]:
        return [case.id for case in labelling.waiting()]

    job, progress = labelling.job, labelling.progress
    if not is_local(job.scheduler):
        segment_on_cluster(job, waiting(), labelling.count, progress)
        return
    progress("stage", stage="Loading the weights", total=None)
    segmenter = Segmenter(job.manifest, progress, cpu_allowed=job.cpu_if_needed)
    segmenter.estimate(job.folder, progress, skip=labelling.finished())
    with job.scratch() as scratch:
        counts = segmenter.segment(waiting, labelling.keep, progress, scratch=scratch)
    progress("metric", **dataclasses.asdict(counts))


KIND = JobKind("tffs", TffsParameters, check_cases, run, on_clusters=True)

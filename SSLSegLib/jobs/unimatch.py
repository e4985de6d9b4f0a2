"""A job that trains UniMatch v2 on a cohort, with or without a guide, and labels its unlabelled cases by the model.

Beside what every job folder holds:

unimatch/training/   state to go on from, loss curve        unimatch/model/   the model, once the training has ended
unimatch/slices/     prepared slices, while it trains       unimatch/processes/   logs of a training on several devices
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.guide import GuideSource, guide_inputs, guide_source, refuse_wrong_guide
from SSLSegLib.jobs.inputs import cohort_inputs, weights_input, with_absolute_paths
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.labelling import CohortParameters, Labelling, Threads, check_cases, label_cases, threads_here
from SSLSegLib.jobs.manifest import InputFile, Manifest
from SSLSegLib.jobs.specialist import is_trained, label_by_specialist, memory_told, require_packages
from SSLSegLib.progress import Progress
from SSLSegLib.unimatch.decisions import trained_on
from SSLSegLib.unimatch.folders import UniMatchFolder
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.weights.store import lasting_name, weights_file

__all__ = ["KIND", "GuideSource", "UniMatchParameters", "unimatch_manifest"]


class UniMatchParameters(CohortParameters):
    """Parameters of a ``unimatch`` manifest.

    Args:
        cohort: A cohort as in ``cohort.json``, with absolute paths.
        options: How to train, with all its numbers; its seed is the manifest's.
        guide: Of the guide ``tffs``.
        sam2: Of the guide ``sam2``: name in the catalogue, or path of a file.
        devices: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; several train together, each with its own batch.
        threads: On the CPU; part of the manifest because the order of sums depends on it in the last bit.
        workers: Processes that draw batches, for each device.
        test_cases: Label the test cases too.
        report: Write tables and pictures.
        scene: Write an MRML scene where a Slicer is at hand.
    """

    options: UniMatchOptions
    guide: GuideSource = GuideSource()
    sam2: str | None = None
    devices: tuple[str, ...] = Field(default=("auto",), min_length=1)
    threads: Threads = 1
    workers: int = Field(default=0, ge=0)
    test_cases: bool = False
    report: bool = True
    scene: bool = True


def unimatch_manifest(
    cohort: Cohort,
    options: UniMatchOptions,
    *,
    guide_job: Path | None = None,
    sam2: str | None = None,
    devices: Sequence[str] = ("auto",),
    seed: int = 42,
    threads: int | None = None,
    workers: int = 0,
    test_cases: bool = False,
    report: bool = True,
    scene: bool = True,
) -> Manifest:
    """Write down a run: its files with their checksums, decisions on the guide's labels, parameters, seed, software.

    Args:
        cohort: Labelled and unlabelled cases.
        options: How to train; their seed becomes ``seed``.
        guide_job: A finished pseudo-labelling job, for the guide ``tffs``.
        sam2: Name in the catalogue or file, for the guide ``sam2``.
        devices, threads, workers, test_cases, report, scene: See :class:`UniMatchParameters`.
        seed: Everything random follows from it.

    Raises:
        SSLSegError: A guide does not go with what is given for it, a pseudo-label or a file is missing.
    """
    refuse_wrong_guide(options, guide_job, sam2)
    cohort = with_absolute_paths(cohort)
    guide = guide_source(cohort, guide_job)
    parameters = UniMatchParameters(
        cohort=cohort.to_dict(),
        options=options.model_copy(update={"seed": seed}),
        guide=guide,
        sam2=None if sam2 is None else lasting_name(sam2),
        devices=tuple(devices),
        threads=threads or threads_here(),
        workers=workers,
        test_cases=test_cases,
        report=report,
        scene=scene,
    )
    trained_on(cohort, options, guide.decisions)
    cases = [*cohort.labelled, *cohort.unlabelled, *(cohort.test if test_cases else ())]
    inputs = {**cohort_inputs(cohort, cases), **guide_inputs(guide)}
    if options.method == "upper-bound":
        known = [case for case in cohort.unlabelled if case.reference is not None]
        inputs |= {f"{case.id}/reference": InputFile.of(cohort.label_path(case, "reference")) for case in known}
    if sam2 is not None:
        inputs["sam2"] = InputFile.of(weights_file(sam2))
    if options.encoder_weights is not None:
        inputs["encoder"] = weights_input(options.encoder_weights, "--encoder")
    return Manifest(kind="unimatch", seed=seed, parameters=parameters.model_dump(mode="json"), inputs=inputs)


def preflight(job: Job, progress: Progress) -> None:
    """Everything that can be known to fail before work starts."""
    require_packages()
    parameters: UniMatchParameters = job.manifest.checked_parameters()
    check_cases(job, progress, lambda cohort: trained_on(cohort, parameters.options, parameters.guide.decisions))


def run(job: Job, progress: Progress) -> None:
    """Train from the last state there is, label what is not labelled yet, then write the report and the scene."""
    import torch

    require_packages()  # whoever has checked the cases already comes here without the pre-flight
    parameters: UniMatchParameters = job.manifest.checked_parameters()
    torch.set_num_threads(parameters.threads)
    cohort = parameters.loaded_cohort()
    cases = (*cohort.unlabelled, *(cohort.test if parameters.test_cases else ()))
    label_cases(job, cohort, cases, _label, progress, prepared=is_trained(job))


def _label(labelling: Labelling) -> None:
    job = labelling.job
    parameters: UniMatchParameters = job.manifest.checked_parameters()

    def train_here(where: UniMatchFolder) -> None:
        from SSLSegLib.unimatch.run import train

        train(
            labelling.cohort,
            where.path,
            parameters.options.model_copy(update={"seed": job.manifest.seed}),
            guide_results={case_id: Path(folder) for case_id, folder in parameters.guide.folders.items()},
            decisions=parameters.guide.decisions,
            sam2=parameters.sam2,
            device=parameters.devices,
            workers=parameters.workers,
            progress=labelling.progress,
        )

    with memory_told():
        label_by_specialist(labelling, parameters.devices[0], train_here)


KIND = JobKind("unimatch", UniMatchParameters, preflight, run)

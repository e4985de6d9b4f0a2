"""A job that refines a finished pseudo-labelling job by self-training, round by round."""

import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import JobError
from SSLSegLib.files import write_json
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import refuse_changed_inputs
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.links import refuse_links
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.processes import as_argument
from SSLSegLib.progress import Progress, silent
from SSLSegLib.selftraining.options import Configuration, FirstLabels, Preset, SelfTrainingOptions

if TYPE_CHECKING:
    from SSLSegLib.selftraining.report import RoundReport
    from SSLSegLib.selftraining.run import How, Trainer

__all__ = [
    "KIND",
    "WORK",
    "SelfTrainingParameters",
    "how_to_train",
    "labelled_cohort",
    "refine",
    "require_nnunet",
    "selftraining_manifest",
    "training_folder",
]

WORK = "selftraining"
"""Folder of the training inside the job it refines; of one with other options ``selftraining-2``, ``-3``, ..."""

_REVERTED = "reverted.json"


class SelfTrainingParameters(BaseModel):
    """Parameters of a ``selftraining`` manifest.

    Args:
        job: Folder of the job whose labels are refined.
        preset: ``quick``, ``standard`` or ``paper``.
        rounds: The most rounds; the preset's where it is None.
        configuration: nnU-Net's; the preset's where it is None.
        first_labels: ``given`` or ``best`` (:mod:`SSLSegLib.selftraining.first_labels`); the preset's where it is None.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; several run folds side by side.
        labelled_only: Train the baseline instead: the same network on the labelled cases only.
        revert_to: First undo the rounds after this one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    preset: Preset = "quick"
    rounds: int | None = Field(default=None, ge=1)
    configuration: Configuration | None = None
    first_labels: FirstLabels | None = None
    device: str | tuple[str, ...] = "auto"
    labelled_only: bool = False
    revert_to: int | None = Field(default=None, ge=0)

    def options(self, seed: int) -> SelfTrainingOptions:
        """How to train; the devices may be ``auto``."""
        devices = (self.device,) if isinstance(self.device, str) else self.device
        return SelfTrainingOptions.of(
            self.preset,
            rounds=self.rounds,
            configuration=self.configuration,
            first_labels=self.first_labels,
            devices=devices,
            seed=seed,
        )


def selftraining_manifest(job: Job, *, seed: int = 42, **parameters: Any) -> Manifest:
    """Write down a refinement of a job.

    Args:
        job: Whose labels to refine.
        seed: All random draws follow from it.
        parameters: Of :class:`SelfTrainingParameters`.
    """
    checked = SelfTrainingParameters(job=str(job.folder), **parameters)
    return Manifest(kind="selftraining", seed=seed, parameters=checked.model_dump(mode="json"))


def training_folder(job: Job, cohort: Cohort, options: SelfTrainingOptions) -> Path:
    """Where a training lies in the job it refines: where it was begun, else the first folder that is free."""
    from SSLSegLib.selftraining.folders import WorkFolder
    from SSLSegLib.selftraining.settings import other_settings

    for number in itertools.count(1):
        folder = job.folder / (WORK if number == 1 else f"{WORK}-{number}")
        if not other_settings(WorkFolder(folder), cohort, options):
            return folder
    raise AssertionError  # numbers do not end


def refine(
    job: Job,
    parameters: SelfTrainingParameters,
    *,
    seed: int = 42,
    scheduler: str = "local",
    reverted: Path | None = None,
    progress: Progress = silent,
) -> "tuple[Path, list[RoundReport]]":
    """Train rounds until they converge, or the baseline; what is finished is kept and skipped.

    The job's lock is held meanwhile, so that nothing else writes there.

    Args:
        job: Whose labels are refined.
        parameters: How.
        seed: All random draws follow from it.
        scheduler: Where the folds are trained.
        reverted: A file that says that rounds have been undone, so that a resumed run does not undo them again.
        progress: Listener.

    Returns:
        The folder of the training, and the reports of its rounds (of the baseline none).

    Raises:
        SSLSegError: The labels cannot be refined, or a training fails.
    """
    from SSLSegLib.jobs.cluster_folds import fold_trainer
    from SSLSegLib.jobs.schedulers import require_devices, require_scheduler
    from SSLSegLib.selftraining.children import real_device
    from SSLSegLib.selftraining.rounds import revert, self_train, train_labelled_only

    cohort = require_labels(job)
    options = parameters.options(seed)
    require_scheduler(scheduler, KIND)
    require_devices(scheduler, options.devices)
    results = {case.id: job.result_folder(case.id) for case in cohort.unlabelled}
    refuse_links(job.folder)
    with JobLock(job.lock_path):
        refuse_changed_inputs(job.manifest, cohort)  # the labels were made of these scans
        work = training_folder(job, cohort, options)
        if parameters.revert_to is not None and not (reverted and reverted.exists()):
            moved = revert(work, parameters.revert_to)
            if moved:
                names = ", ".join(f"round {number}" for number in moved)
                progress("warning", message=f"Undone: {names} (kept in {work / 'reverted'}).")
            if reverted:
                write_json(reverted, {"rounds": moved})
        with fold_trainer(scheduler, options.devices, options.folds, progress, job.logs) as (devices, trainer):
            there = options.model_copy(update={"devices": devices})
            how = how_to_train(job, cohort, real_device(options.devices[0]), trainer, progress)
            if parameters.labelled_only:
                train_labelled_only(cohort, results, work, there, **how)
                return work, []
            return work, list(self_train(cohort, results, work, there, **how).rounds)


def how_to_train(job: Job, cohort: Cohort, device: str, trainer: "Trainer", progress: Progress) -> "How":
    """What every training in a job is told beside its options.

    Args:
        job: Whose method the first labels are compared with.
        cohort: Its cohort.
        device: For what this process computes itself.
        trainer: Where the folds are trained.
        progress: Listener.
    """
    from SSLSegLib.jobs.left_out import held_out

    return {"progress": progress, "trainer": trainer, "held_out": held_out(job, cohort, progress), "device": device}


def require_nnunet() -> None:
    """Say that nnU-Net is missing before any work.

    Raises:
        JobError: It is.
    """
    if importlib.util.find_spec("nnunetv2") is None:
        raise JobError("nnU-Net is not installed.", remedy="Install nnunetv2 (in Slicer: the NNUNet extension).")


def labelled_cohort(job: Job) -> Cohort:
    """The cohort that a job labels.

    Raises:
        JobError: The job is of a kind that labels nothing.
    """
    parameters = job.manifest.checked_parameters()
    cohort_of = getattr(parameters, "loaded_cohort", None)
    if cohort_of is None:
        remedy = "Name one that does."
        if isinstance(parameters, SelfTrainingParameters):
            remedy = f"Name the job whose labels it refines: {as_argument(parameters.job)}"
        raise JobError(f"{job.folder} is no job that labels cases.", remedy=remedy)
    cohort: Cohort = cohort_of()
    return cohort


def require_labels(job: Job) -> Cohort:
    """The cohort of a job that has labelled cases.

    Raises:
        JobError: The job is of a kind that labels nothing, or has not labelled anything yet.
    """
    cohort = labelled_cohort(job)
    if not any(job.result_folder(case.id).is_dir() for case in cohort.unlabelled):
        raise JobError(
            f"{job.folder} has no pseudo-labels yet.", remedy=f"Run it first: sslseg run {as_argument(job.folder)}"
        )
    return cohort


def preflight(job: Job, progress: Progress) -> None:
    """The job to refine must be there with its labels, and nnU-Net installed."""
    from SSLSegLib.jobs.cluster_folds import refuse_sending

    require_nnunet()
    refuse_sending(job.scheduler)
    parameters: SelfTrainingParameters = job.manifest.checked_parameters()  # type: ignore[assignment]
    require_labels(Job.open(Path(parameters.job)))


def run(job: Job, progress: Progress) -> None:
    """Train rounds until they converge; what is finished is kept and skipped."""
    parameters: SelfTrainingParameters = job.manifest.checked_parameters()  # type: ignore[assignment]
    refine(
        Job.open(Path(parameters.job)),
        parameters,
        seed=job.manifest.seed,
        scheduler=job.scheduler,
        reverted=job.folder / _REVERTED,
        progress=progress,
    )


KIND = JobKind("selftraining", SelfTrainingParameters, preflight, run, on_clusters=True)

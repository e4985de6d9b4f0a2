"""A job that refines a finished pseudo-labelling job by self-training, round by round."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.progress import Progress

__all__ = ["KIND", "WORK", "SelfTrainingParameters", "selftraining_manifest"]

WORK = "selftraining"
"""Folder of the training inside the pseudo-labelling job, where the command line has it as well."""


class SelfTrainingParameters(BaseModel):
    """Parameters of a ``selftraining`` manifest.

    Args:
        job: Folder of the pseudo-labelling job.
        preset: ``quick``, ``standard`` or ``paper``.
        rounds: The most rounds; the preset's where it is None.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    preset: str = Field(default="quick", pattern="^(quick|standard|paper)$")
    rounds: int | None = Field(default=None, ge=1)
    device: str = "auto"


def selftraining_manifest(
    job: Job, *, preset: str = "quick", rounds: int | None = None, device: str = "auto", seed: int = 42
) -> Manifest:
    """Write down a refinement of a job."""
    parameters: dict[str, Any] = {"job": str(job.folder), "preset": preset, "rounds": rounds, "device": device}
    return Manifest(kind="selftraining", seed=seed, parameters=parameters)


def preflight(job: Job, progress: Progress) -> None:
    """The job to refine must be there, and nnU-Net installed."""
    import importlib.util

    if importlib.util.find_spec("nnunetv2") is None:
        raise JobError("nnU-Net is not installed.", remedy="Install nnunetv2 (in Slicer: the NNUNet extension).")
    parameters: SelfTrainingParameters = job.manifest.checked_parameters()
    source = Job.open(Path(parameters.job))
    if source.manifest.kind != "tffs":
        raise JobError(f"{source.folder} is no pseudo-labelling job.", remedy="Name the folder of one.")


def run(job: Job, progress: Progress) -> None:
    """Train rounds until they converge; what is finished is kept and skipped."""
    from SSLSegLib.selftraining.options import SelfTrainingOptions
    from SSLSegLib.selftraining.rounds import self_train

    parameters: SelfTrainingParameters = job.manifest.checked_parameters()
    source = Job.open(Path(parameters.job))
    cohort = source.manifest.checked_parameters().loaded_cohort()
    options = SelfTrainingOptions.of(
        parameters.preset, rounds=parameters.rounds, devices=(_device(parameters.device),), seed=job.manifest.seed
    )
    results = {case.id: source.result_folder(case.id) for case in cohort.unlabelled}
    self_train(cohort, results, source.folder / WORK, options, progress=progress)


def _device(name: str) -> str:
    if name != "auto":
        return name
    from SSLSegLib.weights.device import resolve_device

    return str(resolve_device("auto").device)


KIND = JobKind("selftraining", SelfTrainingParameters, preflight, run)

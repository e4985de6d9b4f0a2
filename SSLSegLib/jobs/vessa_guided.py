"""A job that trains UniMatch v2 with VESSA as its guide (paper 2, stage 2) and labels the cohort by the trained model.

Beside what every job folder holds:

unimatch/   as in a ``unimatch`` job; while it trains also vessa/, what VESSA's mask decoder needs of every slice
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import JobError, WeightsError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.labelling import Labelling, check_cases, label_cases
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.unimatch import WORK
from SSLSegLib.jobs.vessa import VessaParameters, load_bank, load_parts, vessa_manifest
from SSLSegLib.progress import Progress
from SSLSegLib.unimatch.folders import UniMatchFolder
from SSLSegLib.vessa.options import VessaOptions

if TYPE_CHECKING:
    from SSLSegLib.unimatch.model import TrainedNetwork

__all__ = ["KIND", "GuidedParameters", "guided_manifest"]


class GuidedParameters(VessaParameters):
    """Parameters of a ``vessa-unimatch`` manifest: those of a ``vessa`` job, and these.

    Args:
        training: :class:`~SSLSegLib.vessa.guide.GuidedOptions` with all their numbers; the seed is the manifest's.
    """

    training: dict[str, Any]


def guided_manifest(
    cohort: Cohort, bank: Path, options: VessaOptions, training: dict[str, Any], *, seed: int = 42, **settings: Any
) -> Manifest:
    """Write down a run.

    Args:
        cohort: Labelled and unlabelled cases.
        bank: Folder of the template bank.
        options: Candidates and temperature.
        training: See :class:`GuidedParameters`.
        seed: Everything random follows from it.
        settings: ``model``, ``language``, ``sam2``, ``dino``, ``device``, ``threads``, ``report``, ``scene`` of
            :func:`~SSLSegLib.jobs.vessa.vessa_manifest`.

    Raises:
        SSLSegError: Bank, weights or files of a case are missing.
    """
    first = vessa_manifest(cohort, bank, options, seed=seed, **settings)
    parameters = GuidedParameters.model_validate({**first.parameters, "training": {**training, "seed": seed}})
    return Manifest(
        kind="vessa-unimatch", seed=seed, parameters=parameters.model_dump(mode="json"), inputs=first.inputs
    )


def run(job: Job, progress: Progress) -> None:
    """Train from the last state there is, label what is not labelled yet, then write the report and the scene."""
    import torch

    parameters: GuidedParameters = job.manifest.checked_parameters()
    torch.set_num_threads(parameters.threads)
    cohort = parameters.loaded_cohort()
    label_cases(job, cohort, cohort.unlabelled, _label, progress)


def _label(labelling: Labelling) -> None:
    from SSLSegLib.unimatch.predict import predict_cases

    parameters: GuidedParameters = labelling.job.manifest.checked_parameters()
    cohort, progress = labelling.cohort, labelling.progress
    where = UniMatchFolder(labelling.job.folder / WORK)
    model = _model(where, parameters) or _train(where, parameters, cohort, progress)
    predict_cases(model, cohort, labelling.waiting(), labelling.keep, progress=progress)


def _train(where: UniMatchFolder, parameters: GuidedParameters, cohort: Cohort, progress: Progress) -> "TrainedNetwork":
    from SSLSegLib.vessa.guide import GuidedOptions
    from SSLSegLib.vessa.stage2 import train_guided

    bank = load_bank(parameters)
    progress("stage", stage="Loading the weights", total=None)
    vessa, features = load_parts(
        parameters.model, parameters.sam2, parameters.dino, parameters.device, language=parameters.language
    )
    progress("device", device=str(vessa.device), outcome=vessa.device_outcome)
    training = GuidedOptions.model_validate(parameters.training)
    train_guided(cohort, where.path, training, vessa, bank, features, segmenting=parameters.options, progress=progress)
    for folder in (where.slices, where.path / "vessa"):  # large, and of no more use
        shutil.rmtree(folder, ignore_errors=True)
    model = _model(where, parameters)
    if model is None:
        raise JobError(f"The model in {where.model} cannot be read.", remedy="Check the disk and run the job again.")
    return model


def _model(where: UniMatchFolder, parameters: GuidedParameters) -> "TrainedNetwork | None":
    """The trained model, once there is a whole one."""
    from SSLSegLib.unimatch.model import load_model

    try:
        return load_model(where.model, parameters.device)
    except WeightsError:
        return None


KIND = JobKind("vessa-unimatch", GuidedParameters, check_cases, run)

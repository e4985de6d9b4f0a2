"""A job that trains UniMatch v2 with VESSA as its guide (paper 2, stage 2) and labels the cohort by the trained model.

Beside what every job folder holds:

unimatch/   as in a ``unimatch`` job; while it trains also vessa/, what VESSA's mask decoder needs of every slice
"""

from pathlib import Path
from typing import Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs import vessa
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import weights_input
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.labelling import Labelling, label_cases
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.specialist import WORK, memory_told, remove_prepared, require_packages
from SSLSegLib.jobs.vessa import VessaParameters, features_of, load_bank, load_model, vessa_manifest
from SSLSegLib.progress import Progress
from SSLSegLib.unimatch.folders import UniMatchFolder
from SSLSegLib.vessa.options import VessaOptions

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
    first = vessa_manifest(cohort, bank, options, seed=seed, all_classes=True, **settings)
    parameters = GuidedParameters.model_validate({**first.parameters, "training": {**training, "seed": seed}})
    inputs = dict(first.inputs)
    if (encoder := parameters.training.get("encoder_weights")) is not None:
        inputs["encoder"] = weights_input(encoder, "--encoder")
    return Manifest(kind="vessa-unimatch", seed=seed, parameters=parameters.model_dump(mode="json"), inputs=inputs)


def preflight(job: Job, progress: Progress) -> None:
    """As for pseudo-labels, and what trains must be installed: the language model may take minutes to load."""
    require_packages()
    vessa.preflight(job, progress)


def run(job: Job, progress: Progress) -> None:
    """Train from the last state there is, label what is not labelled yet, then write the report and the scene."""
    import torch

    require_packages()  # whoever has checked the cases already comes here without the pre-flight
    parameters: GuidedParameters = job.manifest.checked_parameters()
    torch.set_num_threads(parameters.threads)
    cohort = parameters.loaded_cohort()
    label_cases(job, cohort, cohort.unlabelled, _label, progress)


def _label(labelling: Labelling) -> None:
    from SSLSegLib.pipelines import vessa_unimatch
    from SSLSegLib.vessa.guide import GuidedOptions

    parameters: GuidedParameters = labelling.job.manifest.checked_parameters()
    work = labelling.job.folder / WORK
    with memory_told():
        vessa_unimatch(
            labelling.cohort,
            lambda: load_model(parameters, labelling.progress),
            work,
            GuidedOptions.model_validate(parameters.training),
            sink=labelling.keep,
            bank=lambda: load_bank(parameters),
            segmenting=parameters.options,
            features=lambda loaded: features_of(loaded, parameters.dino),
            device=parameters.device,
            progress=labelling.progress,
            skip=labelling.finished(),
        )
    remove_prepared(UniMatchFolder(work))


KIND = JobKind("vessa-unimatch", GuidedParameters, preflight, run)

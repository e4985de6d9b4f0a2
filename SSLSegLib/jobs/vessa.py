"""A job that pseudo-labels the unlabelled cases of a cohort by VESSA from a template bank."""

from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import CohortError, JobError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import cohort_inputs, weights_input, with_absolute_paths
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.labelling import CohortParameters, Labelling, Threads, check_cases, label_cases, threads_here
from SSLSegLib.jobs.manifest import InputFile, Manifest
from SSLSegLib.progress import Progress
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.weights.store import lasting_name, weights_file

if TYPE_CHECKING:
    from SSLSegLib.vessa.features import Features
    from SSLSegLib.vessa.saving import LoadedVessa
    from SSLSegLib.vessa.templates import TemplateBank

__all__ = [
    "KIND",
    "VessaParameters",
    "features_of",
    "load_bank",
    "load_features",
    "load_model",
    "preflight",
    "require_parts",
    "vessa_manifest",
]


class VessaParameters(CohortParameters):
    """Parameters of a ``vessa`` manifest.

    Args:
        cohort: A cohort as in ``cohort.json``, with absolute paths.
        bank: Folder of the template bank.
        bank_fingerprint: Of its content when the manifest was made.
        model: Folder of a trained VESSA; None: the mode "without VLM" on ``sam2``.
        language: False: a trained VESSA without its language model.
        sam2: Name in the catalogue or path of a file, where there is no ``model``.
        dino: DINOv2 file that the bank was indexed by; None: SAM2's own features.
        options: Of the segmentation.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        threads: On the CPU.
        report: Write tables and pictures.
        scene: Write an MRML scene where a Slicer is at hand.
    """

    bank: str
    bank_fingerprint: str
    model: str | None = None
    language: bool = True
    sam2: str | None = None
    dino: str | None = None
    options: VessaOptions = VessaOptions()
    device: str = "auto"
    threads: Threads = 1
    report: bool = True
    scene: bool = True


def vessa_manifest(
    cohort: Cohort,
    bank: Path,
    options: VessaOptions,
    *,
    model: Path | None = None,
    language: bool = True,
    sam2: str | None = None,
    dino: Path | None = None,
    seed: int = 42,
    device: str = "auto",
    threads: int | None = None,
    report: bool = True,
    scene: bool = True,
    all_classes: bool = False,
) -> Manifest:
    """Write down a run: its files with their checksums, parameters, seed and software.

    Args:
        cohort: Labelled cases and unlabelled ones.
        bank: Folder of the template bank.
        options: Of the segmentation.
        model, language, sam2, dino, device, threads, report, scene: See :class:`VessaParameters`.
        seed: Everything random follows from it.
        all_classes: The bank must show every class, not only one of them.

    Raises:
        SSLSegError: Bank, weights or files of a case are missing.
    """
    from SSLSegLib.vessa.saving import RECORD, require_vessa
    from SSLSegLib.vessa.templates import BANK, TemplateBank

    if (model is None) == (sam2 is None):
        raise CohortError("A VESSA job needs either a trained VESSA or SAM2 weights.", remedy="Give one of the two.")
    if model is not None:
        require_vessa(model)
    templates = TemplateBank.load(bank)
    require = templates.require_all_targets if all_classes else templates.require_targets
    require([each.name for each in cohort.classes])
    parameters = VessaParameters(
        cohort=with_absolute_paths(cohort).to_dict(),
        bank=str(bank.absolute()),
        bank_fingerprint=templates.fingerprint(),
        model=None if model is None else str(model.absolute()),
        language=language,
        sam2=None if sam2 is None else lasting_name(sam2),
        dino=None if dino is None else str(dino.absolute()),
        options=options,
        device=device,
        threads=threads or threads_here(),
        report=report,
        scene=scene,
    )
    inputs = {"bank": InputFile.of(bank / BANK)}
    inputs["weights"] = InputFile.of(weights_file(sam2) if model is None else model / RECORD)
    if dino is not None:
        inputs["dino"] = weights_input(dino, "--dino")
    return Manifest(
        kind="vessa",
        seed=seed,
        parameters=parameters.model_dump(mode="json"),
        inputs={**inputs, **cohort_inputs(cohort)},
    )


def require_parts(model: Path | None, bank: Path) -> None:
    """Refuse a model or a bank that a job would fail on, before any work and without reading either.

    Raises:
        WeightsError: The folder holds no VESSA.
        CohortError: There is no bank, or it is damaged.
    """
    from SSLSegLib.vessa.bank_check import require_whole
    from SSLSegLib.vessa.saving import require_vessa

    if model is not None:
        require_vessa(model)
    require_whole(bank)


def load_model(parameters: VessaParameters, progress: Progress) -> "LoadedVessa":
    """The VESSA of a manifest, on its device.

    Raises:
        WeightsError: Something is missing, damaged or does not fit.
    """
    from SSLSegLib.vessa.saving import load_vessa, without_language

    progress("stage", stage="Loading the weights", total=None)
    if parameters.model is None:
        vessa = without_language(parameters.sam2, parameters.device)
    else:
        vessa = load_vessa(parameters.model, parameters.device, language=parameters.language)
    progress("device", device=str(vessa.device), outcome=vessa.device_outcome)
    return vessa


def features_of(vessa: "LoadedVessa", dino: str | Path | None) -> "Features":
    """What templates are found by: a DINOv2, or a model's own SAM2.

    Raises:
        WeightsError: The DINOv2 is missing, damaged or none.
    """
    from SSLSegLib.vessa.features import dino_features, sam2_features

    if dino is not None:
        return dino_features(dino, device=vessa.device)
    return sam2_features(vessa.model.segmenter.sam2)


def load_features(model: str | Path | None, sam2: str, dino: str | Path | None, device: str) -> "Features":
    """Only the features that templates are found by, without the model they may belong to.

    Raises:
        WeightsError: Something is missing, damaged or does not fit.
    """
    from SSLSegLib.vessa.features import dino_features, sam2_features
    from SSLSegLib.vessa.saving import SAM2, require_vessa
    from SSLSegLib.weights.device import resolve_device
    from SSLSegLib.weights.loading import load_sam2

    if model is not None:
        require_vessa(model)
    if dino is not None:
        return dino_features(dino, device=resolve_device(device).device)
    return sam2_features(load_sam2(sam2 if model is None else Path(model) / SAM2, device).model)


def load_bank(parameters: VessaParameters) -> "TemplateBank":
    """The template bank of a manifest.

    Raises:
        CohortError: It cannot be read.
        JobError: It is another one than when the manifest was made.
    """
    from SSLSegLib.vessa.templates import TemplateBank

    bank = TemplateBank.load(Path(parameters.bank))
    if bank.fingerprint() != parameters.bank_fingerprint:
        raise JobError(
            "The template bank has changed since the job was made.",
            remedy="Restore it, or start a new job in another folder.",
        )
    return bank


def preflight(job: Job, progress: Progress) -> None:
    """Template bank and cases can be used; where nothing is left to label by the bank it is not asked for."""
    from SSLSegLib.jobs.specialist import is_trained
    from SSLSegLib.vessa.bank_check import require_whole

    parameters: VessaParameters = job.manifest.checked_parameters()  # type: ignore[assignment]
    ids = [case.id for case in parameters.loaded_cohort().unlabelled]
    if len(job.finished(ids)) < len(ids) and not is_trained(job):
        require_whole(Path(parameters.bank))
    check_cases(job, progress)


def run(job: Job, progress: Progress) -> None:
    """Pseudo-label what is not finished yet, then write the report and the scene."""
    cohort = job.manifest.checked_parameters().loaded_cohort()
    label_cases(job, cohort, cohort.unlabelled, _label, progress)


def _label(labelling: Labelling) -> None:
    import torch

    from SSLSegLib.vessa.segment import segment_cohort

    manifest, progress = labelling.job.manifest, labelling.progress
    parameters: VessaParameters = manifest.checked_parameters()
    bank = load_bank(parameters)
    torch.set_num_threads(parameters.threads)
    vessa = load_model(parameters, progress)
    segment_cohort(
        labelling.cohort,
        vessa,
        bank,
        parameters.options,
        seed=manifest.seed,
        sink=labelling.keep,
        features=features_of(vessa, parameters.dino),
        progress=progress,
        skip=labelling.finished(),
    )


KIND = JobKind("vessa", VessaParameters, preflight, run)

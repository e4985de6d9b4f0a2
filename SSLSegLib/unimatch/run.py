"""From a cohort to a model and labels: prepare slices, train, segment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.errors import CohortError, WeightsError
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.label import PseudoLabel
from SSLSegLib.pseudolabels.storage import is_complete, read_result, save_pseudo_label
from SSLSegLib.unimatch.decisions import Decisions, guide_folder, guide_folders, read_decisions, trained_on
from SSLSegLib.unimatch.distributed import TrainingTask, train_together
from SSLSegLib.unimatch.folders import UniMatchFolder
from SSLSegLib.unimatch.model import load_model
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.predict import predict_cases

__all__ = ["UniMatchFolder", "label_cases", "train", "train_and_label"]


def train_and_label(
    cohort: Cohort,
    folder: Path,
    options: UniMatchOptions,
    *,
    guide_results: Path | Mapping[str, Path] | None = None,
    decisions: Decisions | None = None,
    sam2: str | Path | None = None,
    device: str | Sequence[str] = "auto",
    workers: int = 0,
    test_cases: bool = False,
    progress: Progress = silent,
) -> UniMatchFolder:
    """Train a specialist on a cohort and segment its unlabelled cases (paper 2, section 3.2).

    Run again with the same arguments after any end: what is finished stays, the training goes on from its last state.

    Args:
        cohort: References of unlabelled and test cases are never looked at; the method ``upper-bound`` takes those of
            unlabelled cases as labels.
        folder: Where everything goes.
        options: How.
        guide_results: Pseudo-labels of the unlabelled cases, for the guide ``tffs``: the ``results`` folder of a
            job (or the job's), or case -> folder.
        decisions: On these pseudo-labels; those that lie beside them now, if they are not given.
        sam2: Name in the catalogue or file, for the guide ``sam2``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; several names: they train together, each with a
            batch of its own, and the first one segments.
        workers: Processes that draw batches, for each device.
        test_cases: Segment the test cases too.
        progress: Gets ``stage``, ``progress``, ``metric``, ``device`` and ``result`` events.

    Raises:
        CohortError, CaseError: The input cannot be used.
        WeightsError: Weights are missing or do not fit.
        JobError: The folder holds another training.
    """
    where = train(
        cohort,
        folder,
        options,
        guide_results=guide_results,
        decisions=decisions,
        sam2=sam2,
        device=device,
        workers=workers,
        progress=progress,
    )
    cases = (*cohort.unlabelled, *(cohort.test if test_cases else ()))
    first = device if isinstance(device, str) else device[0]
    label_cases(cohort, where, cases, device=first, progress=progress)
    return where


def train(
    cohort: Cohort,
    folder: Path,
    options: UniMatchOptions,
    *,
    guide_results: Path | Mapping[str, Path] | None = None,
    decisions: Decisions | None = None,
    sam2: str | Path | None = None,
    device: str | Sequence[str] = "auto",
    workers: int = 0,
    progress: Progress = silent,
) -> UniMatchFolder:
    """Train, and write the model; see :func:`train_and_label`."""
    from SSLSegLib.unimatch.worker import train_task

    folders = _guides(cohort, options, guide_results, sam2)
    cohort = trained_on(cohort, options, read_decisions(folders, progress) if decisions is None else decisions)
    _require_weights(UniMatchFolder(Path(folder)), options, sam2)
    devices = (device,) if isinstance(device, str) else tuple(device)
    task = TrainingTask(
        cohort=cohort.to_dict(),
        cohort_folder=cohort.folder,
        folder=folder,
        options=options,
        guides={case.id: guide_folder(cohort, case, folders) for case in cohort.unlabelled if options.guide == "tffs"},
        sam2=None if sam2 is None else str(sam2),
        device=devices[0],
        workers=workers,
    )
    if len(devices) == 1:
        train_task(task, progress)
    else:
        train_together(task, devices, progress)
    return UniMatchFolder(Path(folder))


def label_cases(
    cohort: Cohort,
    where: UniMatchFolder,
    cases: Sequence[Case],
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> None:
    """Segment cases with the trained model (the teacher's weights) into the run's folder.

    Results that are there, whole and of this model, stay.
    """
    model = load_model(where.model, device)

    def has_result(case: Case) -> bool:
        folder = where.result(case.id)
        return is_complete(folder) and read_result(folder).provenance["weights"]["sha256"] == model.record.sha256

    def keep(label: PseudoLabel) -> None:
        save_pseudo_label(where.result(label.case_id), label, cohort.classes)

    predict_cases(model, cohort, [case for case in cases if not has_result(case)], keep, progress=progress)


def _require_weights(where: UniMatchFolder, options: UniMatchOptions, sam2: str | Path | None) -> None:
    """Read what the training starts from, and let go of it: a wrong file is told before anything is written."""
    from SSLSegLib.unimatch.train import require_encoder

    require_encoder(where.training, options)
    if options.guide == "sam2":
        from SSLSegLib.weights.loading import load_sam2

        load_sam2(sam2)


def _guides(
    cohort: Cohort, options: UniMatchOptions, guide_results: Path | Mapping[str, Path] | None, sam2: str | Path | None
) -> dict[str, Path]:
    """Where the pseudo-labels of the guide ``tffs`` lie; nothing for other guides."""
    if options.guide == "sam2" and sam2 is None:
        raise WeightsError("The guide 'sam2' needs weights.", remedy="Name them with --sam2 (see `weights list`).")
    if options.guide != "tffs":
        return {}
    if guide_results is None:
        raise CohortError(
            "The guide 'tffs' needs pseudo-labels of the unlabelled cases.",
            remedy="Name a finished pseudo-labelling job with --guide-job, or choose another guide.",
        )
    return guide_folders(cohort, guide_results)

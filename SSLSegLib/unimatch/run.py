"""From a cohort to a model and labels: prepare slices, train, segment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.errors import CohortError, WeightsError
from SSLSegLib.progress import Progress, silent
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.guides import Guide, Sam2Guide, StoredGuide, pseudo_label_maps
from SSLSegLib.unimatch.model import load_model, save_model
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.predict import predict_cases
from SSLSegLib.unimatch.slices import StackBuilder, cohort_pixel_mm
from SSLSegLib.unimatch.train import Trainer
from SSLSegLib.weights.device import resolve_device

__all__ = ["UniMatchFolder", "label_cases", "train", "train_and_label"]


@dataclass(frozen=True)
class UniMatchFolder:
    """What lies where::

    slices/     prepared slices; can be deleted when the training has ended
    training/   training.json, state.pt, curve.jsonl
    model/      model.json and the weights; written when the training has ended
    results/    pseudo-labels of unlabelled cases, if no other place is named
    """

    path: Path

    @property
    def slices(self) -> Path:
        return self.path / "slices"

    @property
    def training(self) -> Path:
        return self.path / "training"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def result(self, case_id: str) -> Path:
        """Result folder of a case."""
        return self.path / "results" / case_id


def train_and_label(
    cohort: Cohort,
    folder: Path,
    options: UniMatchOptions,
    *,
    guide_results: Path | Mapping[str, Path] | None = None,
    sam2: str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
    results: Mapping[str, Path] | None = None,
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
        sam2: Name in the catalogue or file, for the guide ``sam2``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        workers: Processes that draw batches.
        results: Case -> folder for its pseudo-label; ``folder/results/<case>`` by default.
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
        sam2=sam2,
        device=device,
        workers=workers,
        progress=progress,
    )
    cases = (*cohort.unlabelled, *(cohort.test if test_cases else ()))
    label_cases(cohort, where, cases, device=device, results=results, progress=progress)
    return where


def train(
    cohort: Cohort,
    folder: Path,
    options: UniMatchOptions,
    *,
    guide_results: Path | Mapping[str, Path] | None = None,
    sam2: str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = silent,
) -> UniMatchFolder:
    """Train, and write the model; see :func:`train_and_label`."""
    where = UniMatchFolder(Path(folder))
    if options.method == "upper-bound":
        cohort = _all_labelled(cohort)
    cohort.require(labelled=1, unlabelled=1 if options.uses_unlabelled else 0)
    _require_guide(options, guide_results, sam2)
    chosen = resolve_device(device)
    progress("device", device=str(chosen.device), outcome=chosen.outcome)
    guide = _guide(options, sam2, chosen.device)
    cases = (*cohort.labelled, *cohort.unlabelled)
    pixel_mm = options.pixel_mm or cohort_pixel_mm(cohort, cases, options.size)
    maps = pseudo_label_maps(cohort, guide_results) if options.guide == "tffs" else None
    builder = StackBuilder(cohort, where.slices, pixel_mm, maps)
    progress("stage", stage="Preparing slices", total=None)
    labelled = builder.build(cohort.labelled, progress)
    unlabelled = builder.build(cohort.unlabelled, progress) if options.uses_unlabelled else []
    trainer = Trainer(
        where.training,
        StepBatches(labelled, unlabelled, options),
        len(cohort.classes) + 1,
        options,
        guide,
        device=chosen.device,
        progress=progress,
        workers=workers,
    )
    trainer.run()
    common: dict[str, Any] = {"channels": _channels(cohort), "pixel_mm": pixel_mm, "options": options.what()}
    save_model(where.model / "student", trainer.student, cohort, which="student", **common)
    save_model(where.model, trainer.teacher, cohort, which="teacher", **common)
    return where


def label_cases(
    cohort: Cohort,
    where: UniMatchFolder,
    cases: tuple[Case, ...],
    *,
    device: str = "auto",
    results: Mapping[str, Path] | None = None,
    progress: Progress = silent,
) -> None:
    """Segment cases with the trained model (the teacher's weights) and write their pseudo-labels."""
    progress("stage", stage="Segmenting", total=len(cases))
    model = load_model(where.model, device)
    folders = results or {case.id: where.result(case.id) for case in cases}
    predict_cases(model, cohort, cases, folders, progress=progress)


def _require_guide(options: UniMatchOptions, guide_results: object, sam2: object) -> None:
    if options.guide == "tffs" and guide_results is None:
        raise CohortError(
            "The guide 'tffs' needs pseudo-labels of the unlabelled cases.",
            remedy="Name a finished pseudo-labelling job with --guide-job, or choose another guide.",
        )
    if options.guide == "sam2" and sam2 is None:
        raise WeightsError("The guide 'sam2' needs weights.", remedy="Name them with --sam2 (see `weights list`).")


def _guide(options: UniMatchOptions, sam2: str | Path | None, device: torch.device) -> Guide | None:
    if options.guide == "tffs":
        return StoredGuide()
    if options.guide == "sam2":
        from SSLSegLib.weights.loading import load_sam2

        return Sam2Guide(load_sam2(sam2, device).model, options.prompting)
    return None


def _all_labelled(cohort: Cohort) -> Cohort:
    """The same cohort as if the labels of its unlabelled cases had never been hidden."""
    known = [case.id for case in cohort.unlabelled if case.reference is not None]
    if not known:
        raise CohortError(
            "The upper bound needs references of the unlabelled cases.", remedy="Choose the method 'supervised'."
        )
    labelled = [*(case.id for case in cohort.labelled), *known]
    return cohort.with_roles(labelled=labelled, test=[case.id for case in cohort.test])


def _channels(cohort: Cohort) -> int:
    """Channels of the images (one file may hold several)."""
    from SSLSegLib.cases.reading import read_volume

    return read_volume(cohort, cohort.labelled[0]).array.shape[0]

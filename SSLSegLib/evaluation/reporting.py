"""Reports on what lies in folders: an evaluation, or the results of a job with whatever references there are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_image, read_label_file, read_volume
from SSLSegLib.cases.volume import LabelMap, Volume
from SSLSegLib.errors import CaseError, JobError
from SSLSegLib.evaluation.figures import CaseView
from SSLSegLib.evaluation.folders import Evaluation, Predictions, find_predictions, load_references
from SSLSegLib.evaluation.report import ReportCase, ReportSection, write_report
from SSLSegLib.evaluation.scores import CaseScores, score_case
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.review import ReviewState, load_review
from SSLSegLib.pseudolabels.storage import UNCERTAINTY

__all__ = ["report_evaluation", "report_results"]


def report_results(
    results: Path,
    cohort: Cohort,
    output: Path,
    *,
    title: str | None = None,
    sections: Sequence[ReportSection] = (),
    progress: Progress = silent,
) -> tuple[Path, list[CaseScores]]:
    """Report on a job's finished results; cases with a reference are scored by it.

    Args:
        results: The job folder or its ``results``.
        cohort: The job's cohort.
        output: Folder for the report.
        title: Heading; the cohort's name by default.
        sections: Further parts of the page.
        progress: Hears ``stage`` report and ``progress`` per case.

    Returns:
        The path of ``report.html``, and the scores of the cases that have a reference.

    Raises:
        SSLSegError: If nothing is finished, or a result does not match its checksums or its reference's geometry.
    """
    found = find_predictions(results)
    if not found.records:
        raise JobError(f"There are no finished results in {results}.", remedy="Run the job first.")
    references = load_references(cohort, cohort.classes)
    scores = {}
    progress("stage", stage="report", total=len(found.files))
    for done, (case_id, path) in enumerate(found.files.items(), 1):
        if case_id in references:
            prediction = read_label_file(path, cohort.classes, case_id=case_id)
            scores[case_id] = score_case(case_id, prediction, references[case_id](), cohort.classes)
        progress("progress", stage="report", done=done, total=len(found.files), case=case_id)
    case_ids = {case.id for case in cohort.cases}
    cases = [
        _report_case(case_id, found, scores.get(case_id), references, _images_of(cohort, case_id, case_ids))
        for case_id in found.files
    ]
    notes = (
        [f"References were used only to score these results ({len(scores)} of {len(cases)} cases)."] if scores else []
    )
    path = write_report(
        output,
        cases,
        cohort.classes,
        title=title or f"Pseudo-labels of {cohort.name}",
        provenance=next(iter(found.records.values())).provenance,
        notes=notes,
        sections=sections,
    )
    return path, list(scores.values())


def report_evaluation(
    evaluation: Evaluation, output: Path, *, title: str = "Evaluation", images: Path | None = None
) -> Path:
    """Report on an evaluation.

    Args:
        evaluation: Of :func:`SSLSegLib.evaluation.folders.evaluate_folder`.
        output: Folder for the report.
        title: Heading.
        images: A folder of images with the predictions' names, for the pictures; the cohort's by default. Without
            either, contours are drawn on black.

    Returns:
        The path of ``report.html``.
    """
    found, cohort = evaluation.predictions, evaluation.cohort
    case_ids = {case.id for case in cohort.cases} if cohort else set()
    cases = []
    for scores in evaluation.cases:
        loader = _images_in(images, scores.case_id) or _images_of(cohort, scores.case_id, case_ids)
        cases.append(_report_case(scores.case_id, found, scores, evaluation.references, loader))
    notes = []
    if evaluation.without_reference:
        notes.append(f"Not scored, no reference: {', '.join(evaluation.without_reference)}.")
    if evaluation.without_prediction:
        notes.append(f"In no average, no prediction: {', '.join(evaluation.without_prediction)}.")
    return write_report(
        output,
        cases,
        evaluation.classes,
        title=title,
        kind="pseudo-label" if found.records else "prediction",
        provenance=next(iter(found.records.values())).provenance if found.records else None,
        notes=notes,
    )


def _report_case(
    case_id: str,
    found: Predictions,
    scores: CaseScores | None,
    references: Mapping[str, Callable[[], LabelMap]],
    image: Callable[[], Volume] | None,
) -> ReportCase:
    folder = found.files[case_id].parent
    record = found.records.get(case_id)
    classes = record.classes if record else _classes_of(scores)
    review = load_review(folder) if record else None

    def view() -> CaseView:
        prediction = read_label_file(found.files[case_id], classes, case_id=case_id)
        volume = image() if image else None
        if volume is not None and not volume.geometry.matches(prediction.geometry):
            raise CaseError(
                f"The image is not in the geometry of its label: {volume.geometry.difference(prediction.geometry)}.",
                case_id=case_id,
                remedy="Give the image that was segmented, or leave the images out.",
            )
        return CaseView(
            case_id=case_id,
            image=None if volume is None else volume.array[0],
            prediction=prediction.array,
            geometry=prediction.geometry,
            reference=references[case_id]().array if scores is not None else None,
            uncertainty=read_image(folder / UNCERTAINTY, case_id=case_id).array[0] if record else None,
            window=(0.0, 255.0),
        )

    return ReportCase(
        case_id=case_id,
        view=view,
        scores=scores,
        label_scores=record.scores if record else None,
        review=str(review.state) if review and review.state is not ReviewState.UNREVIEWED else None,
    )


def _images_of(cohort: Cohort | None, case_id: str, case_ids: set[str]) -> Callable[[], Volume] | None:
    if cohort is None or case_id not in case_ids:
        return None

    def load() -> Volume:
        volume = read_volume(cohort, cohort.case(case_id))
        return Volume(to_display_range(volume, cohort.modality, cohort.window), volume.geometry)

    return load


def _images_in(folder: Path | None, case_id: str) -> Callable[[], Volume] | None:
    """The image of a case's name, also in nnU-Net's way with the channel behind it."""
    if folder is None:
        return None
    for ending in (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"):
        for name in (f"{case_id}{ending}", f"{case_id}_0000{ending}"):
            if (path := Path(folder) / name).is_file():
                return lambda path=path: _displayed(read_image(path, case_id=case_id))
    raise CaseError(f"There is no image of this case in {folder}.", case_id=case_id, remedy="Name it like its label.")


def _displayed(volume: Volume) -> Volume:
    return Volume(to_display_range(volume, "MR"), volume.geometry)


def _classes_of(scores: CaseScores | None) -> tuple[SegmentClass, ...]:
    return tuple(SegmentClass(value=each.value, name=each.class_name) for each in scores.classes) if scores else ()

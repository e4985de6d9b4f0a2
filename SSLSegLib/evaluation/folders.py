"""Which prediction belongs to which reference: a job's results, or folders of label files matched by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.reading import read_label, read_label_file
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.evaluation.metrics import EmptyDistance
from SSLSegLib.evaluation.scores import CaseScores, Summary, score_case, summarise
from SSLSegLib.files import read_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.storage import LABELS, ResultRecord, is_complete, list_results

__all__ = ["Evaluation", "Predictions", "evaluate_folder", "find_predictions", "load_references"]

_ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_EVERY_VALUE = tuple(SegmentClass(value=value, name=f"label {value}") for value in range(1, 256))


@dataclass(frozen=True)
class Predictions:
    """Label files by case id; ``records`` are there for a job's results."""

    files: dict[str, Path]
    records: dict[str, ResultRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a folder of predictions.

    Attributes:
        classes: What was scored.
        cases: In the order of case ids.
        summary: Over the cases.
        without_reference: Predictions that nothing is known to score by.
        without_prediction: References that nothing was predicted for: not in any average. A job predicts no labelled
            cases, so these are not meant where its results are scored by a cohort.
        predictions: Where the predictions lie.
        references: How to read each reference.
        cohort: The cohort that gave the references, if one did.
    """

    classes: tuple[SegmentClass, ...]
    cases: tuple[CaseScores, ...]
    summary: tuple[Summary, ...]
    without_reference: tuple[str, ...]
    without_prediction: tuple[str, ...]
    predictions: Predictions
    references: Mapping[str, Callable[[], LabelMap]]
    cohort: Cohort | None = None


def evaluate_folder(
    predictions: Path,
    labels: Path,
    *,
    classes: Sequence[SegmentClass] | None = None,
    empty: EmptyDistance = "nan",
    progress: Progress = silent,
) -> Evaluation:
    """Score predictions against references.

    Args:
        predictions: A job folder, its ``results`` folder, a folder that ``predict`` wrote, or one of label files.
        labels: A ``cohort.json`` (its references, and the labels of its labelled cases), or a folder of label files
            with the same names (endings may differ).
        classes: What to score; else those of the cohort, of the results, or every value found in the references.
        empty: The distance when one of two masks is empty; see :mod:`SSLSegLib.evaluation.metrics`.
        progress: Hears ``stage`` evaluate and ``progress`` per case.

    Raises:
        SSLSegError: If a folder is missing, no name matches, or a pair is not in one geometry.
    """
    found = find_predictions(predictions)
    labels = Path(labels)
    described = labels.suffix == ".json" or (labels / "cohort.json").is_file()
    described = described or (labels.is_file() and not labels.name.lower().endswith(_ENDINGS))  # whatever its name
    cohort = Cohort.load(labels) if described else None
    if classes is None:
        classes = _known_classes(cohort, found)
    references = load_references(cohort if cohort is not None else labels, classes or _EVERY_VALUE)
    matched = [case_id for case_id in sorted(found.files) if case_id in references]
    if not matched:
        raise CohortError(
            f"No prediction in {predictions} has a reference in {labels}.",
            remedy="Give both the same file names (endings may differ), or references in cohort.json.",
        )
    if classes is None:
        classes = _values_in(references[case_id]() for case_id in matched)

    progress("stage", stage="evaluate", total=len(matched))
    cases = []
    for case_id in matched:
        reference = references[case_id]()
        prediction = read_label_file(found.files[case_id], classes, case_id=case_id)
        cases.append(score_case(case_id, prediction, reference, classes, empty))
        progress("progress", stage="evaluate", done=len(cases), total=len(matched), case=case_id)
    expected = set(references) - ({case.id for case in cohort.labelled} if cohort and found.records else set())
    return Evaluation(
        classes=tuple(classes),
        cases=tuple(cases),
        summary=tuple(summarise(cases)),
        without_reference=tuple(sorted(set(found.files) - set(references))),
        without_prediction=tuple(sorted(expected - set(found.files))),
        predictions=found,
        references=references,
        cohort=cohort,
    )


def find_predictions(folder: Path) -> Predictions:
    """The label files of a job folder, of its ``results`` folder, of what ``predict`` wrote, or of a folder of them.

    Raises:
        SSLSegError: If there are none, two files have one case id, or a result does not match its checksums.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CohortError(f"There is no folder {folder}.", remedy="Name the folder that holds the predictions.")
    results = folder / "results" if (folder / "results").is_dir() else folder
    if by_model := _by_a_trained_model(results):
        return Predictions(by_model)
    records = list_results(results)
    for case_id in records:
        if not is_complete(results / case_id):
            raise CaseError(
                "The files of this result are not those that were written.",
                case_id=case_id,
                remedy="Run the job again: it resumes.",
            )
    if records:
        return Predictions({case_id: results / case_id / LABELS for case_id in records}, records)
    files = _label_files(folder)
    if not files:
        raise CohortError(
            f"There are no label files and no finished results in {folder}.",
            remedy=f"Label files end in {', '.join(_ENDINGS)}; a job folder holds results/<case>/result.json.",
        )
    return Predictions(files)


def _by_a_trained_model(folder: Path) -> dict[str, Path]:
    """Case -> label file of what ``predict`` wrote: it has a record of its own kind, without checksums."""
    found = {}
    for path in sorted(folder.glob(f"*/{LABELS}")):
        try:
            record = read_json(path.parent / "result.json")
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("method") == "FSL-nnUNet" and "checkpoints" in record:
            found[path.parent.name] = path
    return found


def load_references(source: Cohort | Path, classes: Sequence[SegmentClass]) -> Mapping[str, Callable[[], LabelMap]]:
    """How to read the reference of each case that has one; nothing is read before it is asked for.

    Args:
        source: A cohort, or a folder of label files.
        classes: Passed on to the reader.
    """
    if isinstance(source, Cohort):
        return {
            case.id: lambda case=case: read_label(source, case, "reference" if case.reference else "label")
            for case in source.cases
            if case.reference or case.label
        }
    if not source.is_dir():
        raise CohortError(f"There is no folder or cohort file {source}.", remedy="Name where the references lie.")
    return {
        case_id: lambda path=path, case_id=case_id: read_label_file(path, classes, case_id=case_id)
        for case_id, path in _label_files(source).items()
    }


def _label_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((each for each in _ENDINGS if path.name.lower().endswith(each)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        case_id = path.name[: -len(ending)]
        if case_id in files:
            raise CaseError(
                f"{files[case_id].name} and {path.name} are both labels of this case.",
                case_id=case_id,
                remedy="Leave one of them in the folder.",
            )
        files[case_id] = path
    return files


def _known_classes(cohort: Cohort | None, found: Predictions) -> tuple[SegmentClass, ...] | None:
    if cohort is not None:
        return cohort.classes
    if found.records:
        return next(iter(found.records.values())).classes
    return None


def _values_in(references) -> tuple[SegmentClass, ...]:
    present = np.zeros(256, bool)
    for reference in references:
        present[np.unique(reference.array)] = True
    return tuple(each for each in _EVERY_VALUE if present[each.value]) or _EVERY_VALUE[:1]

"""The cohort and its pseudo-labels as an nnU-Net dataset: D = {D^l, (X^u, Y^u)} of Algorithm 1.

Images stay where they are: ``dataset.json`` names them. Only what nnU-Net cannot read as it lies (a DICOM folder,
several channels in one file) is converted. Labels are written anew, as nnU-Net wants the values 1, 2, ... in turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.headers import read_header
from SSLSegLib.cases.reading import read_geometry, read_image, read_label, read_label_file
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError
from SSLSegLib.files import write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.review import CORRECTED_LABEL, ReviewState, load_review
from SSLSegLib.selftraining.folders import DATASET, WorkFolder

__all__ = [
    "LABELS_FILE",
    "ClassValues",
    "Decisions",
    "export_dataset",
    "image_files",
    "nnunet_key",
    "read_decisions",
    "result_folders",
    "write_corrected",
]

LABELS_FILE = "labels.nii.gz"

_MEANT = ("background", "ignore")  # to nnU-Net these are the value 0 and voxels to leave out of the loss


class ClassValues:
    """The cohort's label values and nnU-Net's, which are 1, 2, ... in the order of the classes."""

    def __init__(self, classes: Sequence[SegmentClass]) -> None:
        self.classes = tuple(classes)
        self._to = np.zeros(256, np.uint8)
        self._from = np.zeros(256, np.uint8)
        for place, each in enumerate(self.classes, start=1):
            self._to[each.value], self._from[place] = place, each.value

    def to_nnunet(self, labels: np.ndarray) -> np.ndarray:
        """uint8 (K, J, I) in the cohort's values -> the same in nnU-Net's."""
        return self._to[labels]

    def from_nnunet(self, labels: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_nnunet`."""
        return self._from[labels]

    @property
    def nnunet_classes(self) -> list[SegmentClass]:
        """The classes with nnU-Net's values, to write label files with."""
        return [each.model_copy(update={"value": place}) for place, each in enumerate(self.classes, start=1)]

    @property
    def nnunet_labels(self) -> dict[str, int]:
        """The ``labels`` of ``dataset.json``; names that nnU-Net takes for something else are said otherwise."""
        names = [f"{each.name} (class)" if each.name in _MEANT else each.name for each in self.classes]
        return {"background": 0, **{name: place for place, name in enumerate(names, start=1)}}


@dataclass(frozen=True)
class Decisions:
    """What people decided about the pseudo-labels.

    Args:
        rejected: Cases whose pseudo-label is not to be trained on.
        corrected: Case -> file of the corrected label; such cases count as labelled.
    """

    rejected: frozenset[str] = frozenset()
    corrected: Mapping[str, Path] = None  # type: ignore[assignment]  # an empty one, below

    def __post_init__(self) -> None:
        object.__setattr__(self, "corrected", dict(self.corrected or {}))


def result_folders(cohort: Cohort, results: Path | Mapping[str, Path]) -> dict[str, Path]:
    """Where the pseudo-label of each unlabelled case lies: ``results/<case id>``, or as the mapping says."""
    if isinstance(results, Mapping):
        return {case.id: Path(results[case.id]) for case in cohort.unlabelled if case.id in results}
    return {case.id: Path(results) / case.id for case in cohort.unlabelled}


def read_decisions(folders: Mapping[str, Path], progress: Progress = silent) -> Decisions:
    """The reviews in the result folders. A decision on a label map that has changed since is not used.

    Raises:
        CaseError: When a review file is damaged.
    """
    rejected, corrected = set(), {}
    for case, folder in folders.items():
        review = load_review(folder)
        if review.state is ReviewState.CORRECTED:  # the person's own label holds, whatever became of the method's
            corrected[case] = folder / CORRECTED_LABEL
        elif review.state is ReviewState.REJECTED:
            if review.is_stale(folder):
                progress("warning", message="The rejection was of another pseudo-label; it is not used.", case=case)
            else:
                rejected.add(case)
    return Decisions(frozenset(rejected), corrected)


def nnunet_key(case_id: str) -> str:
    """nnU-Net's name of a case: the id, but nnU-Net takes names that end in ``_seg`` for labels."""
    return f"{case_id}-" if case_id.endswith(("_seg", "-")) else case_id


def image_files(paths: Sequence[Path], converted: Path, key: str, case_id: str) -> list[str]:
    """One file a channel that nnU-Net can read: the files themselves, or conversions of them.

    Args:
        paths: The case's image files or folders.
        converted: Folder for conversions.
        key: Name of the case in it.
        case_id: For messages.

    Raises:
        CaseError: When an image cannot be read.
    """
    headers = [read_header(path, case_id=case_id) for path in paths]
    plain = all(len(header.files) == 1 and header.components == 1 and header.geometry for header in headers)
    if plain and len({(header.size, header.geometry.spacing) for header in headers if header.geometry}) == 1:
        return [str(path.resolve()) for path in paths]
    volume = read_image(list(paths), case_id=case_id)
    files = [converted / f"{key}_{channel:04d}.nii.gz" for channel in range(len(volume.array))]
    for channel, file in zip(volume.array, files, strict=True):
        if not file.is_file():
            write_scalar(file, channel, volume.geometry)
    return [str(file.resolve()) for file in files]


def export_dataset(
    work: WorkFolder, cohort: Cohort, folders: Mapping[str, Path], progress: Progress = silent
) -> dict[str, str]:
    """Write ``dataset.json`` and the first labels (round 1's) in nnU-Net's values.

    Args:
        work: The run.
        cohort: Labelled and unlabelled cases take part; test cases and references are never looked at.
        folders: Unlabelled case -> folder of its pseudo-label. A case without one gets an empty label: it will be
            predicted but not trained on.
        progress: Listener.

    Returns:
        Case id -> nnU-Net's name of the case.

    Raises:
        CaseError: When an image or a label cannot be read, or a label is not on the grid of its image.
        CohortError: When there is no labelled or no unlabelled case.
    """
    cohort.require(labelled=1, unlabelled=1)
    values = ClassValues(cohort.classes)
    cases = [*cohort.labelled, *cohort.unlabelled]
    keys = {case.id: nnunet_key(case.id) for case in cases}
    dataset: dict[str, dict[str, object]] = {}
    channels = 0
    progress("stage", stage="dataset", total=len(cases))
    for done, case in enumerate(cases, start=1):
        key = keys[case.id]
        images = image_files(cohort.image_paths(case), work.raw / "images", key, case.id)
        if channels not in (0, len(images)):
            raise CaseError(
                f"The case has {len(images)} channels, the others {channels}.",
                case_id=case.id,
                remedy="Give every case the same channels.",
            )
        channels = len(images)
        label = work.labels / f"{key}.nii.gz"
        if not label.is_file():
            grid = read_geometry(cohort, case)
            first = _first_label(cohort, case, folders.get(case.id), grid, progress)
            _write(label, LabelMap(values.to_nnunet(first.array), grid), values)
        dataset[key] = {"images": images, "label": str(label.resolve())}
        progress("progress", stage="dataset", done=done, total=len(cases), case=case.id)
    write_json(
        work.raw / DATASET / "dataset.json",
        {
            "channel_names": {str(channel): cohort.modality for channel in range(channels)},
            "labels": values.nnunet_labels,
            "numTraining": len(dataset),
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",
            "dataset": dataset,
        },
    )
    write_json(work.cases, keys)
    return keys


def write_corrected(work: WorkFolder, cohort: Cohort, case_id: str, source: Path) -> Path:
    """A person's correction in nnU-Net's values, beside the first labels.

    Raises:
        CaseError: When it cannot be read or is not on the grid of its image.
    """
    values, grid = ClassValues(cohort.classes), read_geometry(cohort, cohort.case(case_id))
    label = _on_grid(read_label_file(source, cohort.classes, case_id=case_id), grid, case_id, source)
    target = work.labels.parent / "corrected" / f"{nnunet_key(case_id)}.nii.gz"
    _write(target, LabelMap(values.to_nnunet(label.array), grid), values)
    return target


def _first_label(cohort: Cohort, case: Case, folder: Path | None, grid: Geometry, progress: Progress) -> LabelMap:
    if case.role == "labelled":
        return read_label(cohort, case)
    path = None if folder is None else folder / LABELS_FILE
    if path is None or not path.is_file():
        progress("warning", message="The case has no pseudo-label; it is predicted but not trained on.", case=case.id)
        return LabelMap(np.zeros(grid.shape, np.uint8), grid)
    return _on_grid(read_label_file(path, cohort.classes, case_id=case.id), grid, case.id, path)


def _on_grid(label: LabelMap, grid: Geometry, case_id: str, path: Path) -> LabelMap:
    if not label.geometry.matches(grid):
        raise CaseError(
            f"{path.name} lies in another grid than the image: {label.geometry.difference(grid)}.",
            case_id=case_id,
            remedy="Make the pseudo-labels of this cohort again.",
        )
    return LabelMap(label.array, grid)


def _write(path: Path, label: LabelMap, values: ClassValues) -> None:
    write_label(path, label, values.nnunet_classes, reference=label.geometry)

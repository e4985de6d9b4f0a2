"""Cases with their image features: every slice goes through the image encoder once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.progress import Progress, silent

if TYPE_CHECKING:
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.tffs.features import VolumeFeatures
    from SSLSegLib.tffs.template import LabelledTemplate

__all__ = ["EncodedImage", "LabelledCase", "encode", "encode_labelled"]

STAGE = "Encoding labelled cases"


@dataclass(frozen=True)
class EncodedImage:
    """Image features of a case's slices, and its geometry."""

    features: "VolumeFeatures"
    geometry: Any


@dataclass(eq=False)
class LabelledCase:
    """A labelled case ready to be inserted: encoded once, its templates made once per class and in-plane size.

    Args:
        case: The case.
        features: Image features of its slices.
        label: uint8 (K, J, I).
        geometry: Of both.
    """

    case: Case
    features: "VolumeFeatures"
    label: np.ndarray
    geometry: Any
    _templates: dict[tuple[str, tuple[int, int]], "LabelledTemplate | None"] = field(default_factory=dict)

    def shows(self, segment: SegmentClass) -> bool:
        """Whether any voxel has the class."""
        return bool((self.label == segment.value).any())

    def template(
        self, engine: "TffsEngine", segment: SegmentClass, in_plane: tuple[int, int]
    ) -> "LabelledTemplate | None":
        """The template of a class for unlabelled volumes of that in-plane size; None where the class is absent."""
        key = segment.name, in_plane
        if key not in self._templates:
            mask = self.label == segment.value
            self._templates[key] = engine.template(self.features, mask, in_plane) if mask.any() else None
        return self._templates[key]


def encode_labelled(
    engine: "TffsEngine",
    cohort: Cohort,
    cases: Sequence[Case],
    image_size: int,
    progress: Progress = silent,
    scratch: Path | None = None,
) -> list[LabelledCase]:
    """Read and encode labelled cases, each slice once."""
    from SSLSegLib.cases.reading import read_geometry, read_label

    total = sum(read_geometry(cohort, case).shape[0] for case in cases)
    progress("stage", stage=STAGE, total=total)
    done, encoded = 0, []
    for case in cases:

        def tell(event: str, *, done: int, before: int = done, case: Case = case, **_: Any) -> None:
            progress(event, stage=STAGE, done=before + done, total=total, case=case.id)

        folder = None if scratch is None else scratch / case.id
        image = encode(engine, cohort, case, image_size, tell, folder)
        label = read_label(cohort, case)
        encoded.append(LabelledCase(case, image.features, label.array, label.geometry))
        done += len(image.features)
    return encoded


def encode(
    engine: "TffsEngine", cohort: Cohort, case: Case, image_size: int, progress: Progress, folder: Path | None = None
) -> EncodedImage:
    """Read and encode one case.

    Args:
        engine: Which encodes.
        cohort: Of the case.
        case: Which.
        image_size: Side of the frames.
        progress: Hears encoded slices.
        folder: For the features; in memory without it.
    """
    from SSLSegLib.cases.frames import slices_to_frames
    from SSLSegLib.cases.intensities import to_display_range
    from SSLSegLib.cases.reading import read_volume

    volume = read_volume(cohort, case)
    display = to_display_range(volume, cohort.modality, cohort.window)
    frames = _Frames(display, image_size, slices_to_frames)
    return EncodedImage(engine.encode(frames, progress, folder=folder), volume.geometry)


@dataclass(frozen=True)
class _Frames:
    """Frames made when they are asked for: a whole volume of them would be large."""

    display: np.ndarray
    image_size: int
    convert: Callable[..., Any]

    def __len__(self) -> int:
        return self.display.shape[1]

    def __getitem__(self, index: slice) -> Any:
        return self.convert(self.display, self.image_size, range(*index.indices(len(self))))

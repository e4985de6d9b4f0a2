"""Cases with their image features: every slice goes through the image encoder once for each region that frames show."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.region import Region

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.tffs.features import VolumeFeatures
    from SSLSegLib.tffs.template import LabelledTemplate
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["STAGE", "EncodedCase", "LabelledCase", "encode_labelled", "read_labelled"]

STAGE = "Encoding labelled cases"


@dataclass(eq=False)
class EncodedCase:
    """A case and the image features of its slices, for the regions asked for; read and encoded when needed.

    Args:
        engine: Which encodes.
        cohort: Of the case.
        case: Which.
        image_size: Side of the frames.
        geometry: Of its images.
        folder: For the features; in memory without it.
        most: Features of this many regions are kept, those asked for last.

    Raises:
        CaseError: The images cannot be read (when features are asked for).
    """

    engine: "TffsEngine"
    cohort: Cohort
    case: Case
    image_size: int
    geometry: "Geometry"
    folder: Path | None = None
    most: int = field(default=1, kw_only=True)
    _display: np.ndarray | None = field(default=None, init=False, repr=False)
    _features: dict[Region, "VolumeFeatures"] = field(default_factory=dict, init=False, repr=False)

    def missing(self, regions: Iterable[Region]) -> list[Region]:
        """Those of the regions whose features are not at hand, each once."""
        return [region for region in dict.fromkeys(regions) if region not in self._features]

    def encode(self, regions: Iterable[Region], progress: Progress = silent) -> None:
        """Have the features of these regions at hand, and put the images away."""
        regions = dict.fromkeys(regions)
        for region in sorted(regions, key=self._features.__contains__, reverse=True):  # what is at hand stays so
            self.features(region, progress)
        self.put_away()

    def features(self, region: Region, progress: Progress = silent) -> "VolumeFeatures":
        """Image features of the slices, of frames that show the region."""
        if region not in self._features:
            while len(self._features) >= self.most:
                self._forget(next(iter(self._features)))
            display = self._read()
            rows, columns = region.of(display.shape[2:])
            frames = _Frames(display[:, :, rows, columns], self.image_size)
            self._features[region] = self.engine.encode(frames, progress, folder=self._folder_of(region))
        self._features[region] = self._features.pop(region)  # asked for last
        return self._features[region]

    def put_away(self) -> None:
        """Drop the images, which are read again if more features are asked for."""
        self._display = None

    def _forget(self, region: Region) -> None:
        del self._features[region]
        folder = self._folder_of(region)
        if folder is not None and not region.whole:
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self) -> np.ndarray:
        from SSLSegLib.cases.intensities import to_display_range
        from SSLSegLib.cases.reading import read_volume

        if self._display is None:
            volume = read_volume(self.cohort, self.case)
            self._display = to_display_range(volume, self.cohort.modality, self.cohort.window)
        return self._display

    def _folder_of(self, region: Region) -> Path | None:
        if self.folder is None or region.whole:
            return self.folder
        return self.folder / "-".join(str(share) for share in (*region.rows, *region.columns))


@dataclass(eq=False)
class LabelledCase(EncodedCase):
    """A labelled case ready to be inserted; its templates are made once per class, region and in-plane size.

    Args:
        label: uint8 (K, J, I).
        The others: see :class:`EncodedCase`; ``geometry`` is of image and label.
    """

    label: np.ndarray = field(kw_only=True, repr=False)
    _templates: dict[tuple[Region, str, tuple[int, int]], "LabelledTemplate | None"] = field(
        default_factory=dict, init=False, repr=False
    )

    def shows(self, segment: SegmentClass) -> bool:
        """Whether any voxel has the class."""
        return bool((self.label == segment.value).any())

    def template(
        self, engine: "TffsEngine", segment: SegmentClass, region: Region, in_plane: tuple[int, int]
    ) -> "LabelledTemplate | None":
        """The template of a class for unlabelled volumes of that in-plane size; None where the class is absent.

        Args:
            engine: Which prompts.
            segment: The class.
            region: What the frames show.
            in_plane: Rows and columns of the unlabelled volume's own region.
        """
        key = region, segment.name, in_plane
        if key not in self._templates:
            rows, columns = region.of(self.label.shape[1:])
            mask = self.label[:, rows, columns] == segment.value
            features = self.features(region) if mask.any() else None
            self._templates[key] = None if features is None else engine.template(features, mask, in_plane)
        return self._templates[key]

    def _forget(self, region: Region) -> None:
        super()._forget(region)
        self._templates = {key: template for key, template in self._templates.items() if key[0] != region}


def read_labelled(
    engine: "TffsEngine", cohort: Cohort, cases: Sequence[Case], model: "LoadedSam2", scratch: Path | None = None
) -> list[LabelledCase]:
    """Labelled cases with their labels, to be encoded when needed.

    Args:
        engine: Which encodes.
        cohort: Of the cases.
        cases: Which.
        model: Whose frames' size counts.
        scratch: Folder for features; in memory without it.
    """
    from SSLSegLib.cases.reading import read_label

    def read(case: Case) -> LabelledCase:
        label = read_label(cohort, case)
        folder = None if scratch is None else scratch / case.id
        most = max(len(cohort.classes), 1)
        return LabelledCase(
            engine, cohort, case, model.image_size, label.geometry, folder, most=most, label=label.array
        )

    return [read(case) for case in cases]


def encode_labelled(
    engine: "TffsEngine",
    cohort: Cohort,
    cases: Sequence[Case],
    model: "LoadedSam2",
    progress: Progress = silent,
    scratch: Path | None = None,
) -> list[LabelledCase]:
    """Read and encode all labelled cases that are used together, as :func:`read_labelled`.

    Each slice goes through the encoder once for each region that these cases ask for; the engine's options say whether
    the place of a class counts.
    """
    from SSLSegLib.pipelines.place import class_places

    labelled = read_labelled(engine, cohort, cases, model, scratch)
    places = class_places(labelled, cohort.classes, engine.options, model).values()
    asked = [each.missing(place.region(each.geometry) for place in places) for each in labelled]
    total = sum(each.geometry.shape[0] * len(regions) for each, regions in zip(labelled, asked, strict=True))
    progress("stage", stage=STAGE, total=total)
    done = 0
    for each, regions in zip(labelled, asked, strict=True):
        for region in regions:

            def tell(event: str, *, done: int, before: int = done, case: Case = each.case, **_: Any) -> None:
                progress(event, stage=STAGE, done=before + done, total=total, case=case.id)

            done += len(each.features(region, tell))
        each.put_away()
    return labelled


@dataclass(frozen=True)
class _Frames:
    """Frames made when they are asked for: a whole volume of them would be large."""

    display: np.ndarray
    image_size: int

    def __len__(self) -> int:
        return self.display.shape[1]

    def __getitem__(self, index: slice) -> Any:
        from SSLSegLib.cases.frames import slices_to_frames

        return slices_to_frames(self.display, self.image_size, range(*index.indices(len(self))))

"""Cases with their image features: every slice goes through the image encoder once for each view that shows it."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.view import View, planes_worth

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.pipelines.place import ClassPlace
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.tffs.features import VolumeFeatures
    from SSLSegLib.tffs.options import TffsOptions
    from SSLSegLib.tffs.registration import Registrable
    from SSLSegLib.tffs.template import LabelledTemplate
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["STAGE", "EncodedCase", "LabelledCase", "encode_labelled", "labelled_views", "read_labelled"]

STAGE = "Encoding labelled cases"
_REGISTRABLE = 3  # grids for which a case is kept ready to be registered


@dataclass(eq=False)
class EncodedCase:
    """A case and the image features of its slices, for the views asked for; read and encoded when needed.

    Args:
        engine: Which encodes.
        cohort: Of the case.
        case: Which.
        image_size: Side of the frames.
        geometry: Of its images.
        folder: For the features; in memory without it.
        most: Features of this many views are kept, those asked for last.

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
    _features: dict[View, "VolumeFeatures"] = field(default_factory=dict, init=False, repr=False)
    _registrable: dict[tuple, "Registrable"] = field(default_factory=dict, init=False, repr=False)

    def missing(self, views: Iterable[View]) -> list[View]:
        """Those of the views whose features are not at hand, each once."""
        return [view for view in dict.fromkeys(views) if view not in self._features]

    def encode(self, views: Iterable[View], progress: Progress = silent) -> None:
        """Have the features of these views at hand, and put the images away."""
        views = dict.fromkeys(views)
        for view in sorted(views, key=self._features.__contains__, reverse=True):  # what is at hand stays so
            self.features(view, progress)
        self.put_away()

    def features(self, view: View, progress: Progress = silent) -> "VolumeFeatures":
        """Image features of the slices that the view shows."""
        if view not in self._features:
            while len(self._features) >= self.most:
                self._forget(next(iter(self._features)))
            frames = _Frames(view.seen(self._read()), self.image_size)
            self._features[view] = self.engine.encode(frames, progress, folder=self._folder_of(view))
        self._features[view] = self._features.pop(view)  # asked for last
        return self._features[view]

    def registrable(self, orientation: str, beside: "Registrable | None" = None) -> "Registrable":
        """The images as registration sees them, turned to an orientation.

        Args:
            orientation: As :attr:`~SSLSegLib.cases.geometry.Geometry.orientation`.
            beside: The other volume, to have voxels as long as its.
        """
        from SSLSegLib.tffs.registration import registrable, registration_device, size_seen

        shape, spacing = self.geometry.along(orientation)
        if beside is None:
            size = size_seen(shape, spacing)
        else:
            size = beside.size_of([length * n for length, n in zip(spacing, shape, strict=True)])
        key = orientation, size
        if key not in self._registrable:
            if len(self._registrable) >= _REGISTRABLE:
                del self._registrable[next(iter(self._registrable))]
            channels = np.stack([self.geometry.reoriented(channel, orientation) for channel in self._read()])
            device = registration_device(self.engine.device)
            self._registrable[key] = registrable(channels, size, spacing=spacing, device=device)
        return self._registrable[key]

    def put_away(self) -> None:
        """Drop the images, which are read again if more features are asked for."""
        self._display = None

    def _forget(self, view: View) -> None:
        del self._features[view]
        folder = self._folder_of(view)
        if folder is not None and not view.whole:
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self) -> np.ndarray:
        from SSLSegLib.cases.intensities import to_display_range
        from SSLSegLib.cases.reading import read_volume

        if self._display is None:
            volume = read_volume(self.cohort, self.case)
            self._display = to_display_range(volume, self.cohort.modality, self.cohort.window)
        return self._display

    def _folder_of(self, view: View) -> Path | None:
        if self.folder is None or view.whole:
            return self.folder
        named = (view.plane, *view.along, *view.region.rows, *view.region.columns)
        return self.folder / "-".join(str(number) for number in named)


@dataclass(eq=False)
class LabelledCase(EncodedCase):
    """A labelled case ready to be inserted; its templates are made once per class, view and in-plane size.

    Args:
        label: uint8 (K, J, I).
        The others: see :class:`EncodedCase`; ``geometry`` is of image and label.
    """

    label: np.ndarray = field(kw_only=True, repr=False)
    _templates: dict[tuple[View, str, tuple[int, int]], "LabelledTemplate | None"] = field(
        default_factory=dict, init=False, repr=False
    )

    def shows(self, segment: SegmentClass) -> bool:
        """Whether any voxel has the class."""
        return bool((self.label == segment.value).any())

    def template(
        self, engine: "TffsEngine", segment: SegmentClass, view: View, in_plane: tuple[int, int]
    ) -> "LabelledTemplate | None":
        """The template of a class for unlabelled volumes of that in-plane size; None where the class is absent.

        Args:
            engine: Which prompts.
            segment: The class.
            view: What the frames show.
            in_plane: Rows and columns of what frames show of the unlabelled volume.
        """
        key = view, segment.name, in_plane
        if key not in self._templates:
            mask = view.seen(self.label) == segment.value
            features = self.features(view) if mask.any() else None
            self._templates[key] = None if features is None else engine.template(features, mask, in_plane)
        return self._templates[key]

    def _forget(self, view: View) -> None:
        super()._forget(view)
        self._templates = {key: template for key, template in self._templates.items() if key[0] != view}


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
        most = max(len(cohort.classes), 1) * len(planes_worth([label.geometry]))
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

    Each slice goes through the encoder once for each view that these cases ask for; the engine's options say whether
    the place of a class counts.
    """
    from SSLSegLib.pipelines.place import class_places

    labelled = read_labelled(engine, cohort, cases, model, scratch)
    places = class_places(labelled, cohort.classes, engine.options, model).values()
    asked = [each.missing(labelled_views(places, each, engine.options)) for each in labelled]
    shown = zip(labelled, asked, strict=True)
    total = sum(view.size(each.geometry.shape)[0] for each, views in shown for view in views)
    progress("stage", stage=STAGE, total=total)
    done = 0
    for each, views in zip(labelled, asked, strict=True):
        for view in views:

            def tell(event: str, *, done: int, before: int = done, case: Case = each.case, **_: Any) -> None:
                progress(event, stage=STAGE, done=before + done, total=total, case=case.id)

            done += len(each.features(view, tell))
        each.put_away()
    return labelled


def labelled_views(places: "Iterable[ClassPlace]", case: LabelledCase, options: "TffsOptions") -> list[View]:
    """What frames show of a labelled case, for all classes."""
    return [
        place.labelled_view(case, plane)
        for place in places
        for plane in place.planes(case.geometry, options.insertions)
    ]


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

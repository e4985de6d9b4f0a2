"""Where classes lie in labelled cases, seen from a case of any orientation and size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.tffs.looks import looks
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.view import PLANES, View, planes_worth, view_around, view_size

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.pipelines.encoding import EncodedCase, LabelledCase
    from SSLSegLib.tffs.registration import Displacement
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["Alignment", "ClassPlace", "PlaceWithin", "class_places", "frames_to_track", "zoomed"]


class Alignment:
    """Labelled cases laid on an unlabelled one by registration, each once, when it is first asked for.

    Args:
        image: The unlabelled case.
        tell: Told how many are, after each.
    """

    def __init__(self, image: "EncodedCase", tell: Callable[[int], None] = lambda done: None) -> None:
        self.image, self._tell = image, tell
        self._found: dict[str, list[Displacement]] = {}

    def displacements(self, cases: "Sequence[LabelledCase]") -> "Iterator[list[Displacement]]":
        """Where each place of the unlabelled case may lie in labelled ones, turned to the same orientation."""
        new = [case for case in cases if case.case.id not in self._found]
        if new:
            self._lay(new)
        return (self._found[case.case.id] for case in cases)

    def _lay(self, cases: "Sequence[LabelledCase]") -> None:
        from SSLSegLib.tffs.registration import registered

        orientation = self.image.geometry.orientation
        fixed = self.image.registrable(orientation)
        moving = []
        for case in cases:
            moving.append(case.registrable(orientation, fixed))
            case.put_away()
        for case, found in zip(cases, registered(fixed, moving), strict=True):
            self._found[case.case.id] = found
            self._tell(len(self._found))


class ClassPlace:
    """Where a class lies in labelled cases, and where it must then lie in others.

    A scan may be stored turned round, and still show what the others show.

    Args:
        labelled: Labelled cases; those without the class do not count.
        segment: The class.
        zoomed: Frames show the class's region, and insertions take the three planes in turn where no scan has thick
            slices; otherwise they show all of the stored slices.
    """

    def __init__(self, labelled: "Sequence[LabelledCase]", segment: SegmentClass, *, zoomed: bool) -> None:
        self._labelled = [each for each in labelled if each.shows(segment)]
        self._value = segment.value
        self._zoomed = zoomed
        self._sizes: dict[tuple[str, int], tuple[float, float]] = {}
        self._views: dict[tuple[str, int], View] = {}

    @property
    def shown(self) -> bool:
        """Whether any labelled case shows the class."""
        return bool(self._labelled)

    def planes(self, geometry: "Geometry", insertions: int) -> tuple[int, ...]:
        """The planes that so many insertions into a case of that geometry take in turn."""
        volumes = (geometry, *(each.geometry for each in self._labelled))
        return planes_worth(volumes)[:insertions] if self._zoomed else PLANES[:1]

    def labelled_view(self, case: "LabelledCase", plane: int = 0) -> View:
        """What frames show of a labelled case: the class in the middle, of one size in all cases."""
        if not self._zoomed:
            return View()
        key = case.case.id, plane
        if key not in self._views:
            mask = case.label == self._value
            self._views[key] = view_around([mask], self._size(case.geometry.orientation, plane), plane)
        return self._views[key]

    def frames(self, geometry: "Geometry", insertions: int) -> int:
        """How many frames so many insertions of each labelled case into a case of that geometry track."""
        total = 0
        for some in looks(self.planes(geometry, insertions), insertions, len(self._labelled), told=self._zoomed):
            for each in some:
                view = view_around([], self._size(geometry.orientation, each.plane), each.plane)
                slices = view.size(geometry.shape)[0]
                total += slices * len(each.of(range(min(insertions, slices))))
        return total

    def within(self, alignment: Alignment) -> "PlaceWithin":
        """Where the class must lie in an unlabelled case."""
        from SSLSegLib.tffs.place import moved_prior

        geometry = alignment.image.geometry
        laid = zip(alignment.displacements(self._labelled), self._masks(geometry.orientation), strict=True)
        moved = ((displacement, mask) for some, mask in laid for displacement in some)
        prior = moved_prior(moved, geometry.shape)
        if not self._zoomed:
            return PlaceWithin(prior, dict.fromkeys(PLANES, View()))
        likely = [prior >= max(prior.max() / 2, 1e-3)]
        sizes = {plane: self._size(geometry.orientation, plane) for plane in PLANES}
        return PlaceWithin(prior, {plane: view_around(likely, size, plane) for plane, size in sizes.items()})

    def _size(self, orientation: str, plane: int) -> tuple[float, float]:
        key = orientation, plane
        if key not in self._sizes:
            self._sizes[key] = view_size(list(self._masks(orientation)), plane)
        return self._sizes[key]

    def _masks(self, orientation: str) -> Iterator[np.ndarray]:
        # Made when asked for: those of all classes at once would fill the memory.
        masks = ((each.label == self._value, each.geometry) for each in self._labelled)
        return (geometry.reoriented(mask.astype(np.uint8), orientation).astype(bool) for mask, geometry in masks)


@dataclass(frozen=True)
class PlaceWithin:
    """Where a class must lie in one unlabelled case.

    Args:
        prior: float32 (K, J, I), how often it lies at each voxel in labelled cases that were registered to this one.
        views: What frames show in each plane.
    """

    prior: np.ndarray
    views: dict[int, View]

    def told(self, plane: int) -> np.ndarray:
        """The prior of what frames show."""
        return self.views[plane].seen(self.prior)


def zoomed(options: TffsOptions, model: "LoadedSam2") -> bool:
    """Whether frames show the region of each class, from three sides: where weights are told its place."""
    from SSLSegLib.tffs.place import use_of_place

    return use_of_place(options.place, model.configuration) == "told"


def class_places(
    labelled: "Sequence[LabelledCase]", classes: Sequence[SegmentClass], options: TffsOptions, model: "LoadedSam2"
) -> dict[str, ClassPlace]:
    """The place of each class that any labelled case shows, by name."""
    near = zoomed(options, model)
    places = {segment.name: ClassPlace(labelled, segment, zoomed=near) for segment in classes}
    return {name: place for name, place in places.items() if place.shown}


def frames_to_track(places: dict[str, ClassPlace], geometry: "Geometry", options: TffsOptions) -> int:
    """How many frames the engine tracks to segment a case of that geometry, all classes."""
    return sum(place.frames(geometry, options.insertions) for place in places.values())

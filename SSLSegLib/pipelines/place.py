"""Where classes lie in labelled cases, seen from a case of any orientation and size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.tffs.looks import looks
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.view import PLANES, View, class_view, planes_worth

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.pipelines.encoding import LabelledCase
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["ClassPlace", "class_places", "frames_to_track", "zoomed"]


class ClassPlace:
    """Where a class lies in labelled cases, by relative position along anatomical axes.

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
        self._views: dict[tuple[str, int], View] = {}

    @property
    def shown(self) -> bool:
        """Whether any labelled case shows the class."""
        return bool(self._labelled)

    def planes(self, geometry: "Geometry", insertions: int) -> tuple[int, ...]:
        """The planes that so many insertions into a case of that geometry take in turn."""
        volumes = (geometry, *(each.geometry for each in self._labelled))
        return planes_worth(volumes)[:insertions] if self._zoomed else PLANES[:1]

    def view(self, geometry: "Geometry", plane: int = 0) -> View:
        """What frames of a case with that geometry show."""
        if not self._zoomed:
            return View()
        key = geometry.orientation, plane
        if key not in self._views:
            self._views[key] = class_view(self._masks(geometry.orientation), plane)
        return self._views[key]

    def frames(self, geometry: "Geometry", insertions: int) -> int:
        """How many frames so many insertions of each labelled case into a case of that geometry track."""
        total = 0
        for some in looks(self.planes(geometry, insertions), insertions, len(self._labelled), told=self._zoomed):
            for each in some:
                slices = self.view(geometry, each.plane).size(geometry.shape)[0]
                total += slices * len(each.of(range(min(insertions, slices))))
        return total

    def prior(self, geometry: "Geometry", plane: int = 0) -> np.ndarray:
        """How often the class lies at each voxel of what frames show of a case with that geometry."""
        from SSLSegLib.tffs.place import place_prior

        view = self.view(geometry, plane)
        masks = [view.seen(mask) for mask in self._masks(geometry.orientation)]
        return place_prior(masks, view.size(geometry.shape))

    def _masks(self, orientation: str) -> list[np.ndarray]:
        # Made when asked for: those of all classes at once would fill the memory.
        masks = ((each.label == self._value, each.geometry) for each in self._labelled)
        return [geometry.reoriented(mask.astype(np.uint8), orientation).astype(bool) for mask, geometry in masks]


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

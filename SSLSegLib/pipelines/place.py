"""Where classes lie in labelled cases, seen from a case of any orientation and size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.region import Region, class_region

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.pipelines.encoding import LabelledCase
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["ClassPlace", "class_places"]


class ClassPlace:
    """Where a class lies in labelled cases, by relative position along anatomical axes.

    A scan may be stored turned round, and still show what the others show.

    Args:
        labelled: Labelled cases; those without the class do not count.
        segment: The class.
        zoomed: Frames show the class's region; otherwise all of the plane.
    """

    def __init__(self, labelled: "Sequence[LabelledCase]", segment: SegmentClass, *, zoomed: bool) -> None:
        self._labelled = [each for each in labelled if each.shows(segment)]
        self._value = segment.value
        self._zoomed = zoomed
        self._regions: dict[str, Region] = {}

    @property
    def shown(self) -> bool:
        """Whether any labelled case shows the class."""
        return bool(self._labelled)

    def region(self, geometry: "Geometry") -> Region:
        """What frames of a case with that geometry show of the plane."""
        if not self._zoomed:
            return Region()
        orientation = geometry.orientation
        if orientation not in self._regions:
            self._regions[orientation] = class_region(self._masks(orientation))
        return self._regions[orientation]

    def prior(self, geometry: "Geometry") -> np.ndarray:
        """How often the class lies at each voxel of the region of a case with that geometry, (K, rows, columns)."""
        from SSLSegLib.tffs.place import place_prior

        region, (slices, *plane) = self.region(geometry), geometry.shape
        rows, columns = region.of(tuple(plane))
        masks = [mask[:, *region.of(mask.shape[1:])] for mask in self._masks(geometry.orientation)]
        return place_prior(masks, (slices, rows.stop - rows.start, columns.stop - columns.start))

    def _masks(self, orientation: str) -> list[np.ndarray]:
        # Made when asked for: those of all classes at once would fill the memory.
        masks = ((each.label == self._value, each.geometry) for each in self._labelled)
        return [geometry.reoriented(mask.astype(np.uint8), orientation).astype(bool) for mask, geometry in masks]


def class_places(
    labelled: "Sequence[LabelledCase]", classes: Sequence[SegmentClass], options: TffsOptions, model: "LoadedSam2"
) -> dict[str, ClassPlace]:
    """The place of each class that any labelled case shows, by name.

    Frames are of the class's region where the weights are told its place (:func:`~SSLSegLib.tffs.place.use_of_place`).
    """
    from SSLSegLib.tffs.place import use_of_place

    zoomed = use_of_place(options.place, model.configuration) == "told"
    places = {segment.name: ClassPlace(labelled, segment, zoomed=zoomed) for segment in classes}
    return {name: place for name, place in places.items() if place.shown}

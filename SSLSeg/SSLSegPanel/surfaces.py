"""Surfaces of a segmentation, made segment by segment, so that Slicer can breathe between them. No Qt."""

import slicer
from slicer.i18n import tr as _

__all__ = ["has_surface", "surface_steps"]

_JOINT = "Joint smoothing"


def has_surface(node):
    """Whether a segmentation has surfaces already."""
    return node.GetSegmentation().ContainsRepresentation(_surface())


def surface_steps(node):
    """Make the surfaces that ``node.CreateClosedSurfaceRepresentation()`` makes. A generator.

    Slicer makes one in a single call that keeps Python to itself: it cannot be interrupted, nor done in a thread. So a
    copy of each segment is converted on its own, by Slicer's own rules, and all are shown together at the end.

    Raises:
        SSLSegError: The segmentation was deleted meanwhile.
    """
    from SSLSegLib.errors import SSLSegError

    segmentation = node.GetSegmentation()
    if has_surface(node):
        return
    before = _times(segmentation)
    made = {}
    for identifier in [] if segmentation.GetConversionParameter(_JOINT) == "1" else list(before):
        yield
        if node.GetScene() is None:
            raise SSLSegError(_("The segmentation was deleted while its surface was made."))
        if _times(segmentation) != before:
            break
        made[identifier] = _surface_of(segmentation, identifier)
    if _times(segmentation) == before and len(made) == len(before) and all(each is not None for each in made.values()):
        for identifier, surface in made.items():
            segmentation.GetSegment(identifier).AddRepresentation(_surface(), surface)
    if not has_surface(node):  # smoothed together, or edited meanwhile
        node.CreateClosedSurfaceRepresentation()


def _surface():
    return slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def _surface_of(segmentation, identifier):
    """The surface of a copy of one segment, or None where Slicer makes none."""
    alone = slicer.vtkSegmentation()
    alone.SetSourceRepresentationName(segmentation.GetSourceRepresentationName())
    alone.DeserializeConversionParameters(segmentation.SerializeAllConversionParameters())
    if not alone.CopySegmentFromSegmentation(segmentation, identifier) or not alone.CreateRepresentation(_surface()):
        return None
    return alone.GetSegment(identifier).GetRepresentation(_surface())


def _times(segmentation):
    """Segment id -> when its voxels were last changed."""
    name, found = segmentation.GetSourceRepresentationName(), {}
    for index in range(segmentation.GetNumberOfSegments()):
        source = segmentation.GetNthSegment(index).GetRepresentation(name)
        found[segmentation.GetNthSegmentID(index)] = source.GetMTime() if source is not None else None
    return found

"""Surfaces of a segmentation, made in a child process, so that Slicer lives meanwhile. No Qt."""

import logging
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.children import aside, child_steps

__all__ = ["has_surface", "surface_steps"]

_JOINT = "Joint smoothing"
_SCRIPT = Path(__file__).resolve().parent.parent / "Scripts" / "make_surfaces.py"
_ATTEMPTS = 3  # while somebody draws
_LIMIT = 300.0  # seconds; a child that takes longer hangs
_SMALL = 400_000  # voxels of a segment that Slicer's own call is done with (50 ms) before a child has started (3 s)


def has_surface(node):
    """Whether a segmentation has surfaces already."""
    return node.GetSegmentation().ContainsRepresentation(_surface())


def surface_steps(node):
    """Make the surfaces that ``node.CreateClosedSurfaceRepresentation()`` makes. A generator.

    Slicer's one call for it keeps Python to itself: it cannot be interrupted, nor done in a thread. So a child process
    calls it on a copy. Where there can be no such child, or all segments are small, a copy of each is converted here,
    one after the other.

    Raises:
        SSLSegError: The segmentation was deleted meanwhile.
    """
    segmentation = node.GetSegmentation()
    by_child = segmentation.GetSourceRepresentationName() == _voxels() and not _is_small(segmentation)
    for _attempt in range(_ATTEMPTS if by_child else 0):
        if has_surface(node):
            return
        before = _state(segmentation)
        try:
            made = yield from _made_aside(node, before)
        except Exception:  # whatever it was, Slicer's own way remains
            made = None
            logging.warning("SSLSeg: surfaces are not made in a child process.", exc_info=True)
        _require(node)
        if made is None:
            break
        if _add(node, made, before):
            return
    yield from _made_here(node)


def _made_aside(node, before):
    """Segment id -> its surface, made in a child process; not all of them where the segments change meanwhile."""
    from SSLSegLib.processes import this_process
    from SSLSegLib.scene.surfaces import hand_over_steps, read_surface, surface_path, voxels_to_file

    made = {}
    folder = Path(tempfile.mkdtemp(prefix="sslseg-surfaces-", dir=slicer.app.temporaryPath))
    try:
        yield
        with closing(hand_over_steps(node.GetSegmentation(), folder)) as slabs:
            while _unchanged(node, before) and (slab := next(slabs, None)) is not None:
                yield from aside(voxels_to_file, *slab)
        if _unchanged(node, before):
            arguments = [str(_SCRIPT), str(folder), *map(str, this_process())]
            with closing(child_steps(arguments, folder / "log.txt", limit=_LIMIT)) as waiting:
                while _unchanged(node, before) and (pause := next(waiting, None)) is not None:
                    yield pause
        for index, identifier in enumerate(before[0]):
            if not _unchanged(node, before):
                break
            made[identifier] = yield from aside(read_surface, surface_path(folder, index))
        yield from aside(shutil.rmtree, folder, True)
        return made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made_here(node):
    """Slicer's own way, as well as it can be cut in pieces."""
    segmentation = node.GetSegmentation()
    if has_surface(node):
        return
    before = _state(segmentation)
    made = {}
    for identifier in [] if segmentation.GetConversionParameter(_JOINT) == "1" else list(before[0]):
        yield
        _require(node)
        if _state(segmentation) != before:
            break
        made[identifier] = _surface_of(segmentation, identifier)
    if not _add(node, made, before):  # smoothed together, or edited meanwhile
        node.CreateClosedSurfaceRepresentation()


def _is_small(segmentation):
    """Whether every segment lies in few voxels, and they are not smoothed together in one call."""
    if segmentation.GetConversionParameter(_JOINT) == "1":
        return False
    name = segmentation.GetSourceRepresentationName()
    sources = [
        segmentation.GetNthSegment(index).GetRepresentation(name) for index in range(segmentation.GetNumberOfSegments())
    ]
    return all(source is not None and source.GetNumberOfPoints() <= _SMALL for source in sources)


def _require(node):
    from SSLSegLib.errors import SSLSegError

    if node.GetScene() is None:
        raise SSLSegError(_("The segmentation was deleted while its surface was made."))


def _unchanged(node, before):
    return node.GetScene() is not None and _state(node.GetSegmentation()) == before


def _add(node, made, before):
    """Show surfaces where there is one of each segment as it is now. True where there are surfaces then."""
    segmentation, surface = node.GetSegmentation(), _surface()
    if segmentation.ContainsRepresentation(surface):  # somebody else's
        return True
    if _state(segmentation) != before or len(made) < len(before[0]) or any(each is None for each in made.values()):
        return False
    with slicer.util.NodeModify(node):  # else Slicer makes those of the other segments itself when the first is there
        for identifier, each in made.items():
            segmentation.GetSegment(identifier).AddRepresentation(surface, each)
    return segmentation.ContainsRepresentation(surface)


def _surface():
    return slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()


def _voxels():
    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def _surface_of(segmentation, identifier):
    """The surface of a copy of one segment, or None where Slicer makes none."""
    alone = slicer.vtkSegmentation()
    alone.SetSourceRepresentationName(segmentation.GetSourceRepresentationName())
    alone.DeserializeConversionParameters(segmentation.SerializeAllConversionParameters())
    if not alone.CopySegmentFromSegmentation(segmentation, identifier) or not alone.CreateRepresentation(_surface()):
        return None
    return alone.GetSegment(identifier).GetRepresentation(_surface())


def _state(segmentation):
    """Segment id -> when its voxels were last changed; and the parameters of the conversion."""
    name, found = segmentation.GetSourceRepresentationName(), {}
    for index in range(segmentation.GetNumberOfSegments()):
        source = segmentation.GetNthSegment(index).GetRepresentation(name)
        found[segmentation.GetNthSegmentID(index)] = source.GetMTime() if source is not None else None
    return found, segmentation.SerializeAllConversionParameters()

"""The classes of a run: segments of the labelled cases, with their colours, codes and what is known of their shape."""

from slicer.i18n import tr as _

__all__ = ["PIECES_TAG", "classes_of", "comes_in_pieces", "segment_names", "segments_in_pieces"]

PIECES_TAG = "SSLSeg.Pieces"


def segment_names(cases):
    """Segment name -> in how many of the labelled cases it is, in the order of first appearance."""
    counts = {}
    for case in cases:
        segmentation = case.segmentation.GetSegmentation() if case.role == "labelled" and case.segmentation else None
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            name = segmentation.GetNthSegment(index).GetName().strip()
            counts[name] = counts.get(name, 0) + 1
    return counts


def segments_in_pieces(cases):
    """Segment name -> whether the structure has several parts, for the segments of the labelled cases."""
    found = {}
    for case in cases:
        segmentation = case.segmentation.GetSegmentation() if case.role == "labelled" and case.segmentation else None
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            segment = segmentation.GetNthSegment(index)
            found.setdefault(segment.GetName().strip(), comes_in_pieces(segment))
    return found


def classes_of(cases, choices):
    """The classes of a run: the segments of the labelled cases that are not ignored, numbered from 1.

    Raises:
        CohortError: Where none is left.
    """
    from SSLSegLib.cases.classes import SegmentClass
    from SSLSegLib.errors import CohortError

    classes, seen = [], set(choices.ignored)
    for case in cases:
        segmentation = case.segmentation.GetSegmentation() if case.role == "labelled" and case.segmentation else None
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            segment = segmentation.GetNthSegment(index)
            name = segment.GetName().strip()
            if name in seen:
                continue
            seen.add(name)
            classes.append(
                SegmentClass(
                    value=len(classes) + 1,
                    name=name,
                    color=tuple(round(255 * part) for part in segment.GetColor()),
                    terminology=_terminology(segment),
                    largest_component=not choices.paired.get(name, comes_in_pieces(segment)),
                )
            )
    if not classes:
        raise CohortError(
            _("No segment of the labelled cases is used as a class."), remedy=_("Tick one in the table of classes.")
        )
    return tuple(classes)


def comes_in_pieces(segment):
    """Whether a structure has several parts, as a cohort file has said when its label was loaded."""
    from SSLSegLib.scene.marks import get_tag

    return get_tag(segment, PIECES_TAG) == "several"


def _terminology(segment):
    """The DICOM codes of a segment, or None where it has none that can be written."""
    from pydantic import ValidationError

    from SSLSegLib.cases.classes import Code, Terminology

    parts = (segment.GetTerminology() or "").split("~")
    if len(parts) < 3:
        return None

    def coded(text):
        fields = text.split("^")
        if len(fields) != 3 or not all(fields):
            return None
        return Code(scheme=fields[0], value=fields[1], meaning=fields[2])

    try:
        kind = coded(parts[2])
        if kind is None:
            return None
        codes = {"category": coded(parts[1]), "type": kind}
        for key, index in (("modifier", 3), ("region", 5), ("region_modifier", 6)):
            codes[key] = coded(parts[index]) if len(parts) > index else None
        return Terminology(**{key: value for key, value in codes.items() if value is not None})
    except ValidationError:
        return None

"""DICOM SEG by Slicer's own exporter (core since 5.12): names, codes and algorithm come from the segments. No Qt.

The exporter's class is used, not the plugin around it: that one asks about empty segments in a dialog and adds what it
wrote to the user's DICOM database.
"""

import slicer
import vtk
from slicer.i18n import tr as _

__all__ = ["name_algorithm", "write_dicom"]

ALGORITHM_TYPE, ALGORITHM_NAME = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
_LONGEST = 64  # characters of a DICOM long string (LO)
# What Slicer itself gives a segment of which nothing is said.
_TISSUE = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~"
    "Anatomic codes - DICOM master list~^^~^^"
)


def name_algorithm(node, name, kind="AUTOMATIC"):
    """Say on each segment who drew it; the exporter takes a segment without that for drawn by hand."""
    for segment in _segments(node).values():
        segment.SetTag(ALGORITHM_TYPE, kind)
        segment.SetTag(ALGORITHM_NAME, name[:_LONGEST])


def write_dicom(case, path):
    """Write a case's result as one DICOM SEG file that refers to the DICOM series of its scan. Returns the path.

    Raises:
        SSLSegError: The scan did not come from DICOM, its files are gone, or the exporter refuses, with its words.
    """
    from SSLSegLib.errors import SSLSegError

    def refuse(problem, remedy=""):
        raise SSLSegError(problem, case_id=case.name, remedy=remedy or _("Untick DICOM SEG for this export."))

    try:
        from DICOMSegmentationPlugin import DICOMSegmentationExporter
    except ImportError:
        refuse(_("This Slicer has no DICOM SEG exporter."), _("Use Slicer 5.12 or newer, or untick DICOM SEG."))
    instances = (case.volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if not instances:
        refuse(_("Its scan was not loaded from DICOM, so DICOM SEG has nothing to refer to."))
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not all(database.fileForInstance(uid) for uid in instances):
        refuse(
            _("The DICOM files of its scan are not in Slicer's DICOM database."),
            _("Import them again (Add DICOM Data module), or untick DICOM SEG."),
        )
    segments = [identifier for identifier, _segment in _segments(case.result).items() if _has_voxels(case, identifier)]
    if not segments:
        refuse(_("Its segmentation is empty."))
    for identifier in segments:
        segment = case.result.GetSegmentation().GetSegment(identifier)
        if not segment.GetTerminology():
            segment.SetTerminology(_TISSUE)
    path.parent.mkdir(parents=True, exist_ok=True)
    exporter = DICOMSegmentationExporter(case.result, contentCreatorName="SSLSeg")
    described = {"SeriesDescription": f"SSLSeg {case.id}"[:_LONGEST]}
    try:
        exporter.export(str(path.parent), path.name, described, segmentIDs=segments, skipEmpty=True)
    except Exception as error:  # ValueError with a sentence, RuntimeError with the converter's output
        path.unlink(missing_ok=True)
        refuse(str(error).strip()[-400:])
    finally:
        exporter.cleanup()
    return path


def _segments(node):
    segmentation = node.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    return {segmentation.GetNthSegmentID(index): segmentation.GetNthSegment(index) for index in range(count)}


def _has_voxels(case, identifier):
    """Whether a segment has any; those of one layer share their voxels, which the exporter's own test overlooks."""
    identifiers = vtk.vtkStringArray()
    identifiers.InsertNextValue(identifier)
    merged = slicer.vtkOrientedImageData()
    case.result.GenerateMergedLabelmapForAllSegments(merged, 0, None, identifiers)
    scalars = merged.GetPointData().GetScalars()
    return scalars is not None and scalars.GetNumberOfTuples() > 0 and scalars.GetRange()[1] > 0

"""What tests of the module share beside fixtures."""

import slicer

from SSLSegLib.pseudolabels.storage import load_pseudo_label

__all__ = ["results_of", "segment_masks", "texts"]


def texts(table):
    """The texts of a table, row by row."""
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def results_of(folder):
    """Case id -> label map of the results in a job folder."""
    return {path.name: load_pseudo_label(path).mask for path in sorted((folder / "results").iterdir())}


def segment_masks(node, volume):
    """Segment name -> voxels in the volume's grid, as Slicer itself reads them."""
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]
    return {
        name: slicer.util.arrayFromSegmentBinaryLabelmap(
            node, segmentation.GetSegmentIdBySegmentName(name), volume
        ).copy()
        for name in names
    }

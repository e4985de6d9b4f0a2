"""Who draws on a result without having pressed Correct is correcting it all the same. Knows MRML, no Qt."""

import slicer

from SSLSegPanel.review import review_state

__all__ = ["EditWatch"]


class EditWatch:
    """Tells of segmentations whose voxels somebody changes. Without it such work was lost: the decision spoke of the
    method's own label, and the results of the next run took the place of what was drawn.

    Args:
        begun: Called with the node that is drawn on, at the first change of several.
    """

    def __init__(self, begun):
        self._begun = begun
        self._watched = {}  # node id -> (segmentation, tags of the observers)

    def follow(self, nodes):
        """Watch these segmentation nodes and no others."""
        wanted = {node.GetID(): node.GetSegmentation() for node in nodes}
        for identifier, (segmentation, tags) in list(self._watched.items()):
            if wanted.get(identifier) is not segmentation:
                for tag in tags:
                    segmentation.RemoveObserver(tag)
                del self._watched[identifier]
        for identifier, segmentation in wanted.items():
            if identifier not in self._watched:
                self._watch(identifier, segmentation)

    def stop(self):
        """Watch nothing any more."""
        self.follow([])

    def _watch(self, identifier, segmentation):
        # The id, not the node: the last reference to a node must not go with an observer of its segmentation.
        def changed(caller, event):
            node = slicer.mrmlScene.GetNodeByID(identifier)
            if node is not None and node.GetSegmentation() is segmentation and review_state(node) != "editing":
                self._begun(node)

        kinds = slicer.vtkSegmentation
        # Of voxels and whole segments only: names, colours, states and surfaces change without anybody drawing.
        events = (kinds.SourceRepresentationModified, kinds.SegmentRemoved)
        self._watched[identifier] = (segmentation, [segmentation.AddObserver(event, changed) for event in events])

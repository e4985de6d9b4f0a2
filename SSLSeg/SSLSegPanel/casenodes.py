"""The list of cases, kept in the scene: one hidden node per case refers to the user's nodes and never changes them.

References survive renaming, deleting, saving and loading of the nodes they point to. Knows MRML, no Qt.
"""

import slicer
import vtk
from slicer.i18n import tr as _

__all__ = ["ROLES", "Case", "CaseList", "role_label"]

ROLES = ("labelled", "unlabelled", "test", "ignored")

_ROLE, _ID, _NAME = "SSLSeg.CaseRole", "SSLSeg.CaseNodeID", "SSLSeg.CaseName"
_VOLUME, _SEGMENTATION = "SSLSegVolume", "SSLSegSegmentation"
_RESULT, _UNCERTAINTY = "SSLSegResult", "SSLSegUncertainty"
_RESULT_FOLDER = "SSLSeg.ResultFolder"
_CHANNELS = "SSLSeg.CaseChannels"


def role_label(role):
    """A role in the user's language."""
    return {
        "labelled": _("Labelled"),
        "unlabelled": _("Unlabelled"),
        "test": _("Test"),
        "ignored": _("Ignored"),
    }[role]


class Case:
    """One case: a view on its node.

    Attributes:
        node: The hidden ``vtkMRMLScriptedModuleNode`` that remembers the case.
    """

    def __init__(self, node):
        self.node = node

    @property
    def id(self):
        """Name of the case in job folders: says nothing about the patient, and stays when nodes are renamed."""
        return self.node.GetAttribute(_ID)

    @property
    def name(self):
        """What people call it: the name of its volume."""
        volume = self.volume
        return volume.GetName() if volume else self.node.GetAttribute(_NAME) or self.id

    @property
    def role(self):
        return self.node.GetAttribute(_ROLE)

    @role.setter
    def role(self, role):
        if role not in ROLES:
            raise ValueError(f"{role!r} is none of {', '.join(ROLES)}")
        self.node.SetAttribute(_ROLE, role)

    @property
    def volumes(self):
        """The image, one volume node a channel; without those that were deleted."""
        count = self.node.GetNumberOfNodeReferences(_VOLUME)
        found = [self.node.GetNthNodeReference(_VOLUME, index) for index in range(count)]
        return [node for node in found if node is not None]

    @property
    def volume(self):
        """The first channel, on which results are shown; None where it was deleted."""
        return self.node.GetNthNodeReference(_VOLUME, 0)

    @property
    def missing_channels(self):
        """How many of its channels were deleted: a reference goes with its node, and the others move up."""
        return max(int(self.node.GetAttribute(_CHANNELS) or 0) - len(self.volumes), 0)

    @property
    def segmentation(self):
        """The expert's segmentation, or None. It is only read."""
        return self.node.GetNodeReference(_SEGMENTATION)

    @segmentation.setter
    def segmentation(self, node):
        self.node.SetNodeReferenceID(_SEGMENTATION, node.GetID() if node else None)

    @property
    def result(self):
        """The pseudo-label's segmentation node, or None."""
        return self.node.GetNodeReference(_RESULT)

    @property
    def uncertainty(self):
        """The uncertainty volume of the result, or None."""
        return self.node.GetNodeReference(_UNCERTAINTY)

    @property
    def result_folder(self):
        """Where the result lies on disk, as text; empty where there is none."""
        return self.node.GetAttribute(_RESULT_FOLDER) or ""

    def _set_volumes(self, volumes):
        """Remember the channels, and how many there are."""
        for index, volume in enumerate(volumes):
            self.node.SetNthNodeReferenceID(_VOLUME, index, volume.GetID())
        for index in reversed(range(len(volumes), self.node.GetNumberOfNodeReferences(_VOLUME))):
            self.node.RemoveNthNodeReferenceID(_VOLUME, index)
        self.node.SetAttribute(_CHANNELS, str(len(volumes)))

    def set_result(self, segmentation, uncertainty, folder):
        """Remember the nodes of a result and its folder; None, None, "" forgets them."""
        self.node.SetNodeReferenceID(_RESULT, segmentation.GetID() if segmentation else None)
        self.node.SetNodeReferenceID(_UNCERTAINTY, uncertainty.GetID() if uncertainty else None)
        self.node.SetAttribute(_RESULT_FOLDER, str(folder))

    def problem(self):
        """Why the case cannot be used as it is, in one sentence; empty when it can."""
        if self.role == "ignored":
            return ""
        if not self.volume:
            return _("Its volume was deleted: remove the case, or add the volume again.")
        if self.missing_channels:
            return _("One of its channels was deleted: remove the case and add its volumes again.")
        for volume in self.volumes:
            problem = _volume_problem(volume)
            if problem:
                return problem
        for volume in self.volumes[1:]:
            if not _same_grid(self.volume, volume):
                return _(
                    "Its channels “{name}” and “{first}” lie in different grids: resample one onto the other "
                    "(Resample Scalar Volume)."
                ).format(name=volume.GetName(), first=self.volume.GetName())
        if self.role == "labelled":
            if not self.segmentation:
                return _("A labelled case needs a segmentation: choose one below the table.")
            if not self.segmentation.GetSegmentation().GetNumberOfSegments():
                return _("Its segmentation has no segments.")
            if not _overlap(self.volume, self.segmentation):
                return _("Its segmentation lies outside the volume: choose the one that belongs to it.")
        return ""


class CaseList:
    """The cases of a scene, in the order in which they were added.

    Args:
        scene: The scene; the application's by default.
    """

    def __init__(self, scene=None):
        self._scene = scene

    @property
    def scene(self):
        return self._scene or slicer.mrmlScene

    def __iter__(self):
        nodes = self.scene.GetNodesByClass("vtkMRMLScriptedModuleNode")
        nodes.UnRegister(None)
        found = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
        return iter([Case(node) for node in found if node.GetAttribute(_ID)])

    def __len__(self):
        return len(list(iter(self)))

    def with_role(self, role):
        """The cases of a role."""
        return [case for case in self if case.role == role]

    def find(self, case_id):
        """The case of this id, or None."""
        return next((case for case in self if case.id == case_id), None)

    def of_volume(self, volume):
        """The case that a volume belongs to, or None."""
        return next((case for case in self if volume in case.volumes), None)

    def add(self, volumes, role="unlabelled", segmentation=None, case_id=None):
        """Add a case, or change the one its volume belongs to already.

        Args:
            volumes: A scalar volume node, or a list of them: the channels of one image.
            role: One of :data:`ROLES`.
            segmentation: The expert's segmentation node.
            case_id: Its id in job folders, 1 to 64 of ``A-Z a-z 0-9 . _ -``; numbered by default.

        Returns:
            The :class:`Case`.
        """
        volumes = list(volumes) if isinstance(volumes, (list, tuple)) else [volumes]
        case = self.of_volume(volumes[0])
        if case is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetName("SSLSeg case")
            node.SetHideFromEditors(True)
            node.SetAttribute(_ID, self._free_id(case_id))
            node.SetAttribute(_ROLE, role)
            case = Case(self.scene.AddNode(node))
        with slicer.util.NodeModify(case.node):
            case.role = role
            case.node.SetAttribute(_NAME, volumes[0].GetName())
            case._set_volumes(volumes)
            if segmentation is not None:
                case.segmentation = segmentation
        return case

    def join(self, cases):
        """Make the volumes of several cases the channels of one, the first. Returns it.

        It keeps its role, id and segmentation, or takes over the first segmentation of the others.
        """
        first, *others = cases
        volumes = [volume for case in cases for volume in case.volumes]
        segmentation = next((case.segmentation for case in cases if case.segmentation), None)
        for case in others:
            self.remove(case)
        with slicer.util.NodeModify(first.node):
            first._set_volumes(volumes)
            first.segmentation = segmentation
        return first

    def remove(self, case):
        """Forget a case. Its volume, segmentation and result stay in the scene."""
        self.scene.RemoveNode(case.node)

    def _free_id(self, wish):
        taken = {case.id.lower() for case in self}
        if wish and wish.lower() not in taken:
            return wish
        number = len(taken) + 1
        while f"case_{number:03d}" in taken:
            number += 1
        return f"case_{number:03d}"


def _volume_problem(volume):
    image = volume.GetImageData()
    if image is None or 0 in image.GetDimensions():
        return _("The volume “{name}” has no voxels: load its file again.").format(name=volume.GetName())
    if image.GetNumberOfScalarComponents() != 1:
        return _("The volume “{name}” has colours or vectors: convert it to a scalar volume.").format(
            name=volume.GetName()
        )
    if volume.GetParentTransformNode():
        return _(
            "The volume “{name}” lies under a transform: harden it, or take the volume out of it (Data module)."
        ).format(name=volume.GetName())
    return ""


def _same_grid(first, second):
    """Whether the voxels of two volumes lie in the same places, to a hundredth of a voxel."""
    if first.GetImageData().GetDimensions() != second.GetImageData().GetDimensions():
        return False
    matrices = [slicer.util.arrayFromVTKMatrix(_ijk_to_ras(volume)) for volume in (first, second)]
    far = [*first.GetImageData().GetDimensions(), 1]
    steps = abs(matrices[0] - matrices[1])[:3]
    return bool((steps @ far).max() <= 0.01 * min(first.GetSpacing()))


def _ijk_to_ras(volume):
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def _overlap(volume, segmentation):
    """Whether the bounding boxes of both share some space."""
    first, second = [0.0] * 6, [0.0] * 6
    volume.GetRASBounds(first)
    segmentation.GetRASBounds(second)
    return all(first[i] <= second[i + 1] and second[i] <= first[i + 1] for i in (0, 2, 4))

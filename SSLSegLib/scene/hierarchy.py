"""Where nodes stand in the subject hierarchy: a folder per case, or beside the volume they belong to."""

from typing import Any

from SSLSegLib.scene.embedded import import_slicer
from SSLSegLib.scene.marks import PREFIX

__all__ = ["case_folder", "place_beside", "place_in_case_folder"]

CASE_ATTRIBUTE = f"{PREFIX}CaseID"


def case_folder(scene: Any, case_id: str) -> int:
    """The subject hierarchy item of a case's folder, made on first use."""
    hierarchy = _hierarchy(scene)
    for item in _children(hierarchy, hierarchy.GetSceneItemID()):
        if hierarchy.GetItemAttribute(item, CASE_ATTRIBUTE) == case_id:
            return item
    item = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), case_id)
    hierarchy.SetItemAttribute(item, CASE_ATTRIBUTE, case_id)
    return item


def place_in_case_folder(node: Any, case_id: str) -> None:
    """Put a node of this software into its case's folder, and remember the case on the node."""
    node.SetAttribute(CASE_ATTRIBUTE, case_id)
    hierarchy = _hierarchy(node.GetScene())
    hierarchy.SetItemParent(_item(hierarchy, node), case_folder(node.GetScene(), case_id))


def place_beside(node: Any, volume_node: Any) -> None:
    """Put a new node where a volume stands (its study or folder); the volume stays where it is."""
    hierarchy = _hierarchy(node.GetScene())
    hierarchy.SetItemParent(_item(hierarchy, node), hierarchy.GetItemParent(_item(hierarchy, volume_node)))


def _hierarchy(scene: Any) -> Any:
    # Asked for anew each time: closing or loading a scene replaces the node.
    return import_slicer().vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _item(hierarchy: Any, node: Any) -> int:
    # In the application a plugin makes the item when the node is added; elsewhere it may not be there yet.
    return hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


def _children(hierarchy: Any, item: int) -> list[int]:
    import vtk

    identifiers = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, identifiers)
    return [identifiers.GetId(index) for index in range(identifiers.GetNumberOfIds())]

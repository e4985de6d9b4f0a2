# ruff: noqa: N802, N815, RUF012 - the names are those of Slicer and Qt
"""``slicer.app.coreIOManager()``: what the real ``slicer.util.load...`` and ``save...`` functions ask for."""

from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore

from slicerhost.qtpatch import HostClass

__all__ = ["CoreIOManager"]

_ENDINGS = (
    (".mrb", "SceneFile"),
    (".mrml", "SceneFile"),
    (".seg.nrrd", "SegmentationFile"),
    (".seg.nhdr", "SegmentationFile"),
    (".seq.nrrd", "SequenceFile"),
    (".nrrd", "VolumeFile"),
    (".nhdr", "VolumeFile"),
    (".nii.gz", "VolumeFile"),
    (".nii", "VolumeFile"),
    (".mha", "VolumeFile"),
    (".mhd", "VolumeFile"),
    (".tsv", "TableFile"),
    (".csv", "TableFile"),
    (".txt", "TextFile"),
    (".json", "TextFile"),
    (".h5", "TransformFile"),
    (".tfm", "TransformFile"),
    (".ctbl", "ColorTableFile"),
    (".vtk", "ModelFile"),
    (".ply", "ModelFile"),
    (".stl", "ModelFile"),
)
_NODES = {  # file type: (node class, storage class) of readers that need no logic
    "TableFile": ("vtkMRMLTableNode", "vtkMRMLTableStorageNode"),
    "TextFile": ("vtkMRMLTextNode", "vtkMRMLTextStorageNode"),
    "TransformFile": ("vtkMRMLTransformNode", "vtkMRMLTransformStorageNode"),
    "ColorTableFile": ("vtkMRMLColorTableNode", "vtkMRMLColorTableStorageNode"),
    "ModelFile": ("vtkMRMLModelNode", "vtkMRMLModelStorageNode"),
    "SequenceFile": ("vtkMRMLSequenceNode", "vtkMRMLVolumeSequenceStorageNode"),
    "SegmentationFile": ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"),
}


class CoreIOManager(HostClass, QtCore.QObject):
    """Loads and saves with Slicer's own logics and storage nodes."""

    newFileLoaded = QtCore.Signal(object)
    _signatures = {"newFileLoaded(qSlicerIO::IOProperties)": "newFileLoaded"}

    def fileType(self, filename: str) -> str:
        name = filename.lower()
        return next((kind for ending, kind in _ENDINGS if name.endswith(ending)), "NoFile")

    def loadNodes(self, kind: str, properties: dict, collection: Any = None, messages: Any = None) -> bool:
        filename = str(properties["fileName"])
        try:
            nodes = self._load(kind, filename, properties)
        except OSError as reason:
            if messages is not None:
                import vtk

                messages.AddMessage(vtk.vtkCommand.ErrorEvent, str(reason))
            return False
        for node in nodes:
            if collection is not None:
                collection.AddItem(node)
        self.newFileLoaded.emit(dict(properties))
        return True

    def _load(self, kind: str, filename: str, properties: dict) -> list[Any]:
        if not Path(filename).exists():
            raise OSError(f"{filename} does not exist")
        if kind == "SceneFile":
            return self._load_scene(filename, bool(properties.get("clear", False)))
        name = properties.get("name") or Path(filename).name.split(".")[0]
        if kind == "VolumeFile":
            options = 1 if properties.get("labelmap") else 0
            options |= 4 if properties.get("singleFile") else 0
            node = slicer.modules.volumes.logic().AddArchetypeVolume(filename, name, options)
            if node is None:
                raise OSError(f"{filename} is no volume")
            if properties.get("show", True) and not options & 1:
                slicer.util.setSliceViewerLayers(background=node, fit=True)
            return [node]
        node_class, storage_class = _NODES[kind]
        node = slicer.mrmlScene.AddNewNodeByClass(node_class, slicer.mrmlScene.GenerateUniqueName(name))
        storage = slicer.mrmlScene.AddNewNodeByClass(storage_class)
        storage.SetFileName(filename)
        if not storage.ReadData(node):
            slicer.mrmlScene.RemoveNode(storage)
            slicer.mrmlScene.RemoveNode(node)
            raise OSError(f"{filename} cannot be read as {kind}")
        node.SetAndObserveStorageNodeID(storage.GetID())
        if hasattr(node, "CreateDefaultDisplayNodes"):
            node.CreateDefaultDisplayNodes()
        return [node]

    def _load_scene(self, filename: str, clear: bool) -> list[Any]:
        scene = slicer.mrmlScene
        if filename.lower().endswith(".mrb"):
            done = scene.ReadFromMRB(filename, clear)
        else:
            scene.SetURL(filename)
            done = scene.Connect() if clear else scene.Import()
        if not done:
            raise OSError(f"{filename} is no scene")
        return []

    def saveNodes(self, kind: str, properties: dict, messages: Any = None) -> bool:
        filename = str(properties["fileName"])
        if kind == "SceneFile":
            scene = slicer.mrmlScene
            scene.SetRootDirectory(str(Path(filename).parent))
            if filename.lower().endswith(".mrb"):
                return bool(scene.WriteToMRB(filename))
            scene.SetURL(filename)
            return bool(scene.Commit(filename))
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None or not node.GetStorageNode().SupportedFileType(filename):
            node.AddDefaultStorageNode(filename)
        node.GetStorageNode().SetFileName(filename)
        node.GetStorageNode().SetUseCompression(int(properties.get("useCompression", 1)))
        return bool(node.GetStorageNode().WriteData(node))

    def exportNodes(
        self, identifiers: list[str], filenames: list[str], properties: Any, harden: bool, messages: Any = None
    ) -> bool:
        for identifier, filename in zip(identifiers, filenames, strict=True):
            node = slicer.mrmlScene.GetNodeByID(identifier)
            storage = node.CreateDefaultStorageNode()
            storage.UnRegister(None)
            storage.SetFileName(str(filename))
            if not storage.WriteData(node):
                return False
        return True

    def fileWriterFileType(self, node: Any) -> str:
        known = {node_class: kind for kind, (node_class, _) in _NODES.items()}
        return "VolumeFile" if node.IsA("vtkMRMLVolumeNode") else known.get(node.GetClassName(), "NoFile")

    def fileWriterExtensions(self, node: Any) -> tuple[str, ...]:
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)
        types = storage.GetSupportedWriteFileTypes()
        return tuple(types.GetValue(index) for index in range(types.GetNumberOfValues()))

    def extractKnownExtension(self, filename: str, node: Any) -> str:
        return next((ending for ending, _ in _ENDINGS if filename.lower().endswith(ending)), Path(filename).suffix)

    def addDefaultStorageNodes(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
            node.AddDefaultStorageNode()

    def registeredFileReaderCount(self, kind: str) -> int:
        return int(kind in _NODES or kind in ("VolumeFile", "SceneFile"))

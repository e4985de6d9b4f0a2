# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Other extensions and modules that a module may use; fakes that install nothing and write next to nothing."""

import sys
import types
from collections.abc import Callable
from typing import Any

__all__ = ["install_dicom_fake", "install_nnunet_fake", "install_pytorch_fake", "remove_extension_fakes"]


def install_pytorch_fake(*, installed: bool = True, version: str = "2.13.0") -> types.ModuleType:
    """The PyTorchUtils extension; ``installations`` of the module lists what was asked for."""
    module = sys.modules["PyTorchUtils"] = types.ModuleType("PyTorchUtils")
    module.installed, module.installations, module.user_accepts = installed, [], True

    class PyTorchUtilsLogic:
        @staticmethod
        def torchInstalled() -> bool:
            return module.installed

        @property
        def torch(self) -> Any:
            import torch

            return torch

        def installTorch(
            self,
            askConfirmation: bool = False,
            forceComputationBackend: str | None = None,
            torchVersionRequirement: str | None = None,
            torchvisionVersionRequirement: str | None = None,
        ) -> Any:
            if askConfirmation and not module.user_accepts:
                return None
            module.installations.append((forceComputationBackend, torchVersionRequirement))
            module.installed = True
            return self.torch

        def uninstallTorch(self, askConfirmation: bool = False) -> None:
            module.installed = False

        def getDevice(self) -> str:
            return "cpu"

    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    module.version = version
    return module


def install_nnunet_fake(*, succeeds: bool = True) -> types.ModuleType:
    """The SlicerNNUNet extension's library; ``installations`` of the module lists what was asked for."""
    module = sys.modules["SlicerNNUNetLib"] = types.ModuleType("SlicerNNUNetLib")
    module.installations = []

    class _Signal:
        def __init__(self) -> None:
            self.slots: list[Callable] = []

        def connect(self, slot: Callable) -> None:
            self.slots.append(slot)

        def __call__(self, *arguments: Any) -> None:
            for slot in self.slots:
                slot(*arguments)

    class InstallLogic:
        def __init__(self, doAskConfirmation: bool = True) -> None:
            if doAskConfirmation:
                raise AssertionError("With confirmation this opens a raw message box, which hangs a run without a user")
            self.progressInfo = _Signal()

        def setupPythonRequirements(self, requirement: str = "nnunetv2") -> bool:
            module.installations.append(requirement)
            self.progressInfo(f"Install {requirement}")
            return succeeds  # it returns False and does not raise

        def getInstalledNNUnetVersion(self) -> str | None:
            return "2.8.1" if succeeds and module.installations else None

    module.InstallLogic = InstallLogic
    return module


def install_dicom_fake(instances: tuple[str, ...]) -> types.ModuleType:
    """Slicer's DICOM database with some instances, and its DICOM SEG exporter, which writes no DICOM.

    The fake refuses what the real one of Slicer 5.12 refuses: segments without voxels under VTK's usual name, without
    algorithm name or terminology, and a scan whose files are not in the database. ``exports`` lists what was asked for.
    """
    import slicer

    module = sys.modules["DICOMSegmentationPlugin"] = types.ModuleType("DICOMSegmentationPlugin")
    module.exports, module.fails_with = [], None
    files = {uid: f"/dicom/{uid}.dcm" for uid in instances}
    slicer.dicomDatabase = types.SimpleNamespace(fileForInstance=lambda uid: files.get(uid, ""))

    def tag(segment: Any, name: str) -> str:
        import vtk

        value = vtk.reference("")
        return str(value) if segment.GetTag(name, value) else ""

    class DICOMSegmentationExporter:
        def __init__(self, segmentationNode: Any, contentCreatorName: str | None = None) -> None:
            self.node, self.creator, self.cleaned = segmentationNode, contentCreatorName, False

        def export(
            self,
            outputDirectory: str,
            segFileName: str,
            metadata: dict,
            segmentIDs: list[str] | None = None,
            skipEmpty: bool = False,
        ) -> bool:
            if module.fails_with is not None:
                raise module.fails_with
            segmentation, described = self.node.GetSegmentation(), []
            for identifier in segmentIDs or segmentation.GetSegmentIDs():
                segment = segmentation.GetSegment(identifier)
                scalars = segment.GetRepresentation("Binary labelmap").GetPointData().GetArray("ImageScalars")
                if scalars is None or scalars.GetValueRange() == (0, 0):
                    raise ValueError("No non empty segments found.")
                kind, name = tag(segment, "DICOM.SegmentAlgorithmType"), tag(segment, "DICOM.SegmentAlgorithmName")
                if kind != "MANUAL" and not name:
                    raise ValueError(f"Segment {segment.GetName()} has missing SegmentAlgorithmName")
                if not segment.GetTerminology():
                    raise ValueError(f"Segment {segment.GetName()} has missing attributes. Set terminology.")
                described.append((segment.GetName(), kind, name))
            volume = self.node.GetNodeReference(self.node.GetReferenceImageGeometryReferenceRole())
            if not all(files.get(uid) for uid in volume.GetAttribute("DICOM.instanceUIDs").split()):
                raise ValueError("Referenced volume files were not found in the DICOM database")
            with open(f"{outputDirectory}/{segFileName}", "xb") as written:
                written.write(b"written by the fake of Slicer's DICOM SEG exporter")
            module.exports.append((segFileName, described, metadata))
            return True

        def cleanup(self) -> None:
            self.cleaned = True

    module.DICOMSegmentationExporter = DICOMSegmentationExporter
    return module


def remove_extension_fakes() -> None:
    """The extensions are not installed, and there is no DICOM database."""
    for name in ("PyTorchUtils", "SlicerNNUNetLib", "DICOMSegmentationPlugin"):
        sys.modules.pop(name, None)
    slicer = sys.modules.get("slicer")
    if slicer is not None and hasattr(slicer, "dicomDatabase"):
        del slicer.dicomDatabase

"""Segments as plain files and their surfaces back from them, so that a process beside Slicer can make the surfaces.

Slicer's own conversion keeps Python to itself for as long as it lasts, so a thread beside the window would not help.
The files hold what Slicer's classes hold, number by number: what comes back is what Slicer itself would have made.
"""

import importlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from SSLSegLib.errors import SSLSegError

__all__ = ["hand_over_steps", "make_surfaces", "read_surface", "surface_path", "voxels_to_file"]

_SEGMENTATION = "segmentation.json"
_MODULES = ("vtkSegmentationCorePython", "slicer", "slicer_core.vtkSegmentationCore")
_CLASSES = (
    "vtkBinaryLabelmapToClosedSurfaceConversionRule",
    "vtkOrientedImageData",
    "vtkSegment",
    "vtkSegmentation",
    "vtkSegmentationConverter",
    "vtkSegmentationConverterFactory",
)
_CELLS = ("Verts", "Lines", "Polys", "Strips")
_SLAB = 2**25  # bytes that are copied at once: a few milliseconds


def surface_path(folder: Path, index: int) -> Path:
    """Where the surface of the segment with this index lies."""
    return folder / f"surface{index}.raw"


def voxels_to_file(voxels: np.ndarray, file: BinaryIO) -> None:
    """Write voxels as they lie in memory. Leaves Python to others meanwhile, so it is for a thread."""
    file.write(memoryview(voxels).cast("B"))


def hand_over_steps(segmentation: Any, folder: Path) -> Generator[tuple[np.ndarray, BinaryIO], None, None]:
    """Describe a segmentation of binary labelmaps in a folder; the voxels are for whoever runs this to write.

    Yields:
        Copied voxels, and the file that they go to by :func:`voxels_to_file` before the next step.
    """
    from vtk.util.numpy_support import vtk_to_numpy

    name = segmentation.GetSourceRepresentationName()
    images: list[Any] = []
    layers, segments = [], []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        image = segment.GetRepresentation(name)
        layer = next((number for number, known in enumerate(images) if known is image), len(images))
        if layer == len(images):
            images.append(image)
            layers.append(_described(image))
        segments.append(
            {"id": segmentation.GetNthSegmentID(index), "layer": layer, "value": segment.GetLabelValue()},
        )
    described = {
        "source": name,
        "parameters": segmentation.SerializeAllConversionParameters(),
        "layers": layers,
        "segments": segments,
    }
    (folder / _SEGMENTATION).write_text(json.dumps(described), encoding="utf-8")
    for number, image in enumerate(images):
        if layers[number]["type"] is None:
            continue
        start = 0
        with open(_layer_path(folder, number), "wb") as file:
            while start < image.GetPointData().GetScalars().GetNumberOfValues():
                # Looked up anew: where they are drawn on meanwhile, the voxels may have moved.
                voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(-1)
                slab = voxels[start : start + _SLAB // voxels.itemsize].copy()
                del voxels
                yield slab, file
                start += len(slab)


def make_surfaces(folder: Path) -> None:
    """Make the surfaces of what lies in a folder, by Slicer's own classes and rules, in one call as Slicer does.

    Raises:
        SSLSegError: Slicer's classes are not there, or they make no surface.
    """
    classes = _segmentation_classes()
    described = json.loads((folder / _SEGMENTATION).read_text(encoding="utf-8"))
    # Slicer registers its rules where its module of segmentations is set up, which is not everywhere.
    factory = classes.vtkSegmentationConverterFactory.GetInstance()
    factory.RegisterConverterRule(classes.vtkBinaryLabelmapToClosedSurfaceConversionRule())
    images = [_image(classes, folder, number, layer) for number, layer in enumerate(described["layers"])]
    segmentation = classes.vtkSegmentation()
    segmentation.SetSourceRepresentationName(described["source"])
    segmentation.DeserializeConversionParameters(described["parameters"])
    for each in described["segments"]:
        segment = classes.vtkSegment()
        segment.SetLabelValue(each["value"])
        segment.AddRepresentation(described["source"], images[each["layer"]])
        segmentation.AddSegment(segment, each["id"])
    surface = classes.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    if not segmentation.CreateRepresentation(surface, True):
        raise SSLSegError("Slicer's classes made no surface.")
    for index, each in enumerate(described["segments"]):
        made = segmentation.GetSegment(each["id"]).GetRepresentation(surface)
        if made is None:
            raise SSLSegError(f"Slicer's classes made no surface of the segment {each['id']}.")
        _write_surface(made, surface_path(folder, index))


def read_surface(path: Path) -> Any:
    """The ``vtkPolyData`` that :func:`make_surfaces` wrote. A thread may do it.

    Raises:
        SSLSegError: The file is cut off.
    """
    import vtk

    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    surface = vtk.vtkPolyData()
    with open(path, "rb", buffering=0) as file:
        if described["points"] is not None:
            points = vtk.vtkPoints()
            points.SetData(_read_array(described["points"], file))
            surface.SetPoints(points)
        for kind, (offsets, connectivity) in described["cells"].items():
            cells = vtk.vtkCellArray()
            cells.SetData(_read_array(offsets, file), _read_array(connectivity, file))
            getattr(surface, f"Set{kind}")(cells)
        for name, data in (("points", surface.GetPointData()), ("cells", surface.GetCellData())):
            for array, attribute in described["data"][name]:
                index = data.AddArray(_read_array(array, file))
                if attribute >= 0:
                    data.SetActiveAttribute(index, attribute)
    return surface


def _segmentation_classes() -> Any:
    """The module with Slicer's classes: a small one of the application first, since all of Slicer takes seconds."""
    problems = []
    for name in _MODULES:
        try:
            import vtk  # noqa: F401 - what Slicer's classes are made of, where the small module does not load it

            module = importlib.import_module(name)
        except ImportError as error:
            problems.append(str(error))
            continue
        missing = [each for each in _CLASSES if not hasattr(module, each)]
        if not missing:
            return module
        problems.append(f"{name} has no {', '.join(missing)}")
    raise SSLSegError(f"Slicer's classes for segmentations cannot be imported ({'; '.join(problems)}).")


def _layer_path(folder: Path, number: int) -> Path:
    return folder / f"layer{number}.raw"


def _described(image: Any) -> dict[str, Any]:
    """All of an image but its voxels. Python writes a number such that it is read back as the very same."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetDirectionMatrix(matrix)
    scalars = image.GetPointData().GetScalars()
    return {
        "extent": image.GetExtent(),
        "origin": image.GetOrigin(),
        "spacing": image.GetSpacing(),
        "directions": [matrix.GetElement(row, column) for row in range(4) for column in range(4)],
        "type": scalars.GetDataType() if scalars is not None else None,
        "components": scalars.GetNumberOfComponents() if scalars is not None else 1,
        "name": scalars.GetName() if scalars is not None else None,
    }


def _image(classes: Any, folder: Path, number: int, described: dict[str, Any]) -> Any:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    image = classes.vtkOrientedImageData()
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(described["directions"])
    image.SetExtent(described["extent"])
    image.SetOrigin(described["origin"])
    image.SetSpacing(described["spacing"])
    image.SetDirectionMatrix(matrix)
    if described["type"] is not None:
        image.AllocateScalars(described["type"], described["components"])
        scalars = image.GetPointData().GetScalars()
        if described["name"]:
            scalars.SetName(described["name"])
        with open(_layer_path(folder, number), "rb", buffering=0) as file:
            if scalars.GetNumberOfTuples():
                _read_into(vtk_to_numpy(scalars).reshape(-1), file)
    return image


def _write_surface(surface: Any, path: Path) -> None:
    described: dict[str, Any] = {"cells": {}, "data": {}}
    with open(path, "wb") as file:
        points = surface.GetPoints()
        described["points"] = _write_array(points.GetData(), file) if points is not None else None
        for kind in _CELLS:
            cells = getattr(surface, f"Get{kind}")()
            if cells is not None and cells.GetNumberOfCells():
                cells.ConvertTo64BitStorage()  # of vtkIdType in both processes
                arrays = cells.GetOffsetsArray(), cells.GetConnectivityArray()
                described["cells"][kind] = [_write_array(array, file) for array in arrays]
        for name, data in (("points", surface.GetPointData()), ("cells", surface.GetCellData())):
            described["data"][name] = [
                (_write_array(data.GetArray(index), file), data.IsArrayAnAttribute(index))
                for index in range(data.GetNumberOfArrays())
                if data.GetArray(index) is not None  # texts are none
            ]
    path.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")


def _write_array(array: Any, file: BinaryIO) -> dict[str, Any]:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    if array.GetNumberOfTuples():
        voxels_to_file(np.ascontiguousarray(vtk_to_numpy(array)).reshape(-1), file)
    wide = array.GetDataTypeSize() == 8 and array.IsIntegral()
    return {
        "type": vtk.VTK_ID_TYPE if wide else array.GetDataType(),
        "components": array.GetNumberOfComponents(),
        "tuples": array.GetNumberOfTuples(),
        "name": array.GetName(),
    }


def _read_array(described: dict[str, Any], file: BinaryIO) -> Any:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    array = vtk.vtkDataArray.CreateDataArray(described["type"])
    array.SetNumberOfComponents(described["components"])
    array.SetNumberOfTuples(described["tuples"])
    if described["name"]:
        array.SetName(described["name"])
    if described["tuples"]:
        _read_into(vtk_to_numpy(array).reshape(-1), file)
    return array


def _read_into(array: np.ndarray, file: BinaryIO) -> None:
    """Fill an array from a file, which leaves Python to others meanwhile."""
    left = memoryview(array).cast("B")
    while len(left):
        count = file.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise SSLSegError(f"The file {getattr(file, 'name', '')} is cut off.")
        left = left[count:]

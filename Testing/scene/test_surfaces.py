"""Segments go into files and their surfaces come back as what Slicer's own call makes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk

sys.path.insert(0, str(Path(__file__).parent))
from scene_examples import GRIDS
from vtk.util.numpy_support import vtk_to_numpy

from SSLSegLib.errors import SSLSegError
from SSLSegLib.scene import surfaces as module
from SSLSegLib.scene.surfaces import hand_over_steps, make_surfaces, read_surface, surface_path, voxels_to_file
from SSLSegLib.scene.volumes import vtk_matrix
from SSLSegLib.scene.voxels import voxels_of

SURFACE = "Closed surface"
BINARY = "Binary labelmap"


def layer(array, grid, *, start=(3, -2, 5)):
    """A labelmap as Slicer keeps it: a part of the grid, so it begins anywhere."""
    image = slicer.vtkOrientedImageData()
    size = array.shape[::-1]
    image.SetExtent([each for low, count in zip(start, size, strict=True) for each in (low, low + count - 1)])
    kinds = {"uint8": vtk.VTK_UNSIGNED_CHAR, "int16": vtk.VTK_SHORT}
    image.AllocateScalars(kinds[array.dtype.name], 1)
    voxels_of(image)[:] = array
    image.SetImageToWorldMatrix(vtk_matrix(grid.ijk_to_ras))
    return image


def segmentation_of(*segments, **parameters):
    """Of (layer, value) pairs."""
    made = slicer.vtkSegmentation()
    made.SetSourceRepresentationName(BINARY)
    for name, value in parameters.items():
        made.SetConversionParameter(name.replace("_", " "), value)
    for number, (image, value) in enumerate(segments):
        segment = slicer.vtkSegment()
        segment.SetLabelValue(value)
        segment.AddRepresentation(BINARY, image)
        assert made.AddSegment(segment, f"segment {number}")
    return made


def balls(dtype="uint8"):
    """Two that touch each other, labelled 2 and 5, and one at the border."""
    k, j, i = np.mgrid[:16, :18, :20]
    array = np.zeros((16, 18, 20), dtype)
    array[(k - 7) ** 2 + (j - 6) ** 2 + (i - 8) ** 2 < 20] = 2
    array[(k - 7) ** 2 + (j - 12) ** 2 + (i - 9) ** 2 < 14] = 5
    array[:3, :3, :3] = 2
    return array


def by_files(segmentation, folder):
    for voxels, file in hand_over_steps(segmentation, folder):
        voxels_to_file(voxels, file)
    make_surfaces(folder)
    return [read_surface(surface_path(folder, index)) for index in range(segmentation.GetNumberOfSegments())]


def contents(surface):
    """All numbers of a surface, by place."""
    found = {"points": surface.GetPoints().GetData() if surface.GetPoints() else None}
    for kind in ("Verts", "Lines", "Polys", "Strips"):
        cells = getattr(surface, f"Get{kind}")()
        cells.ConvertTo64BitStorage()
        if cells.GetNumberOfCells():
            found |= {f"{kind} offsets": cells.GetOffsetsArray(), f"{kind} of points": cells.GetConnectivityArray()}
    for place, data in (("point", surface.GetPointData()), ("cell", surface.GetCellData())):
        for index in range(data.GetNumberOfArrays()):
            key = f"{place} {data.GetArray(index).GetName()} {data.IsArrayAnAttribute(index)}"
            found[key] = data.GetArray(index)
    empty = np.zeros((0, 3), np.float32)
    return {
        name: vtk_to_numpy(array) if array is not None and array.GetNumberOfTuples() else empty
        for name, array in found.items()
    }


def assert_same(one, other):
    one, other = contents(one), contents(other)
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        assert np.array_equal(array, other[name]), name


@pytest.mark.parametrize("grid", GRIDS)
def test_surfaces_by_files_are_those_of_slicers_own_call(scene, tmp_path, grid):
    shared = layer(balls(), GRIDS[grid])
    other = layer((balls("int16") == 5) * np.int16(300), GRIDS[grid], start=(0, 0, 0))
    segmentation = segmentation_of((shared, 2), (shared, 5), (other, 300))
    found = by_files(segmentation, tmp_path)
    assert segmentation.CreateRepresentation(SURFACE)
    for index, surface in enumerate(found):
        assert surface.GetNumberOfPolys() > 50
        assert surface.GetPointData().GetNormals() is not None
        assert_same(surface, segmentation.GetNthSegment(index).GetRepresentation(SURFACE))


@pytest.mark.parametrize(
    "parameters",
    [
        {"Joint_smoothing": "1", "Conversion_method": "1"},
        {"Decimation_factor": "0.6", "Smoothing_factor": "0.2", "Compute_surface_normals": "0"},
    ],
)
def test_parameters_of_the_conversion_are_heeded(scene, tmp_path, parameters):
    shared = layer(balls(), GRIDS["oblique"])
    plain = by_files(segmentation_of((shared, 2), (shared, 5)), tmp_path)
    segmentation = segmentation_of((shared, 2), (shared, 5), **parameters)
    found = by_files(segmentation, tmp_path)
    assert segmentation.CreateRepresentation(SURFACE)
    for index, surface in enumerate(found):
        assert_same(surface, segmentation.GetNthSegment(index).GetRepresentation(SURFACE))
        assert not np.array_equal(contents(surface)["points"], contents(plain[index])["points"])


def test_segments_without_voxels_have_empty_surfaces(scene, tmp_path):
    shared = layer(balls(), GRIDS["oblique"])
    nothing = slicer.vtkOrientedImageData()
    nothing.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    segmentation = segmentation_of((shared, 2), (shared, 7), (nothing, 1))
    found = by_files(segmentation, tmp_path)
    assert segmentation.CreateRepresentation(SURFACE)
    for index, surface in enumerate(found):
        assert_same(surface, segmentation.GetNthSegment(index).GetRepresentation(SURFACE))
    assert [surface.GetNumberOfPoints() > 0 for surface in found] == [True, False, False]


def test_voxels_are_handed_over_in_slabs(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLAB", 1000)
    segmentation = segmentation_of((layer(balls(), GRIDS["oblique"]), 2))
    slabs = []
    for voxels, file in hand_over_steps(segmentation, tmp_path):
        slabs.append(voxels)
        voxels_to_file(voxels, file)
    assert len(slabs) == -(-balls().size // 1000)
    assert np.array_equal(np.concatenate(slabs), balls().reshape(-1))
    make_surfaces(tmp_path)
    assert segmentation.CreateRepresentation(SURFACE)
    assert_same(
        read_surface(surface_path(tmp_path, 0)),
        segmentation.GetNthSegment(0).GetRepresentation(SURFACE),
    )


def test_a_surface_that_is_cut_off_is_refused(scene, tmp_path):
    by_files(segmentation_of((layer(balls(), GRIDS["oblique"]), 2)), tmp_path)
    path = surface_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SSLSegError, match="cut off"):
        read_surface(path)


def test_classes_that_cannot_be_imported_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MODULES", ("no_such_module", "json"))
    with pytest.raises(SSLSegError, match=r"no_such_module.*json has no vtkBinary"):
        make_surfaces(tmp_path)

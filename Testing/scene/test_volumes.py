"""Volume nodes hold what the arrays held, in the same place of the patient."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scene_examples import GRIDS, OBLIQUE, grid, random_volume

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import Volume
from SSLSegLib.errors import CaseError
from SSLSegLib.scene.volumes import (
    UNCERTAINTY_MAXIMUM,
    node_to_volume,
    uncertainty_to_node,
    volume_to_node,
)


def transform_node(scene, matrix: np.ndarray):
    from SSLSegLib.scene.volumes import vtk_matrix

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(vtk_matrix(matrix))
    return node


RIGID = np.eye(4)
RIGID[:3, :3] = OBLIQUE
RIGID[:3, 3] = [5, -6, 7]


@pytest.mark.parametrize("name", GRIDS)
def test_a_volume_comes_back_voxel_for_voxel_in_its_place(scene, name: str) -> None:
    volume = random_volume(GRIDS[name])
    back = node_to_volume(volume_to_node(volume, "image"))
    assert np.array_equal(back.array, volume.array)
    assert np.abs(back.geometry.ijk_to_ras - volume.geometry.ijk_to_ras).max() < 1e-9


@pytest.mark.parametrize("name", GRIDS)
def test_slicers_own_reader_and_simpleitk_see_the_same_place(scene, name: str, tmp_path: Path) -> None:
    """An independent witness: written by Slicer as NRRD, read by SimpleITK."""
    import SimpleITK

    volume = random_volume(GRIDS[name])
    node = volume_to_node(volume, "image")
    path = str(tmp_path / "image.nrrd")
    node.AddDefaultStorageNode(path)
    node.GetStorageNode().SetFileName(path)
    assert node.GetStorageNode().WriteData(node)
    image = SimpleITK.ReadImage(path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), volume.array[0])
    assert np.abs(Geometry.from_sitk(image).ijk_to_ras - volume.geometry.ijk_to_ras).max() < 1e-6


def test_whole_numbers_are_kept_as_int16_and_stay_equal(scene) -> None:
    volume = Volume(np.arange(-20, 295, dtype=np.float32).reshape(1, 5, 7, 9), grid())
    node = volume_to_node(volume, "image")
    assert node.GetImageData().GetScalarTypeAsString() == "short"
    assert np.array_equal(node_to_volume(node).array, volume.array)


def test_whole_numbers_beyond_int16_stay_exact(scene) -> None:
    volume = Volume(np.full((1, 5, 7, 9), 40000, dtype=np.float32), grid())
    assert np.array_equal(node_to_volume(volume_to_node(volume, "image")).array, volume.array)


def test_channels_become_one_image_and_channels_of_other_grids_are_refused(scene) -> None:
    volume = random_volume(grid(), channels=2)
    nodes = [volume_to_node(volume, f"channel {number}", channel=number) for number in (0, 1)]
    assert np.array_equal(node_to_volume(nodes).array, volume.array)
    other = volume_to_node(random_volume(grid(OBLIQUE)), "other")
    with pytest.raises(CaseError, match="Channel 2"):
        node_to_volume([nodes[0], other])


def test_a_volume_under_a_transform_is_refused_by_name(scene) -> None:
    node = volume_to_node(random_volume(grid()), "image")
    node.SetAndObserveTransformNodeID(transform_node(scene, RIGID).GetID())
    with pytest.raises(CaseError, match=r"image.*transform.*moved"):
        node_to_volume(node)


def test_a_hardened_copy_is_what_slicer_hardens_and_the_node_is_left_alone(scene) -> None:
    volume = random_volume(grid(OBLIQUE))
    node = volume_to_node(volume, "image")
    transform = transform_node(scene, RIGID)
    node.SetAndObserveTransformNodeID(transform.GetID())
    copy = node_to_volume(node, transform="harden")
    assert node.GetTransformNodeID() == transform.GetID()
    node.HardenTransform()
    slicers = node_to_volume(node)
    assert np.array_equal(copy.array, slicers.array)
    assert np.abs(copy.geometry.ijk_to_ras - slicers.geometry.ijk_to_ras).max() < 1e-6


def test_a_bending_transform_is_refused_with_the_way_out(scene) -> None:
    import vtk

    node = volume_to_node(random_volume(grid()), "image")
    spline = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.ndindex(2, 2, 2):
        source.InsertNextPoint(*(np.array(corner) * 20.0))
        target.InsertNextPoint(*(np.array(corner) * 20.0 + [0, 3.0 * corner[0] * corner[1], 0]))
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    bent = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    bent.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(bent.GetID())
    with pytest.raises(CaseError, match=r"bent.*bends space.*Harden"):
        node_to_volume(node, transform="harden")
    assert node_to_volume(node, transform="ignore").geometry.matches(grid())


def test_a_colour_image_and_an_empty_node_are_refused(scene) -> None:
    import vtk

    rgb = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(3, 3, 3)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    rgb.SetAndObserveImageData(image)
    with pytest.raises(CaseError, match=r"photo.*3 numbers"):
        node_to_volume(rgb)
    with pytest.raises(CaseError, match="no voxels"):
        node_to_volume(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))


def test_uncertainty_has_one_fixed_scale_and_one_colour_table(scene) -> None:
    low, high = (
        uncertainty_to_node(np.full(grid().shape, value), grid(), "uncertainty")
        for value in (0.01, UNCERTAINTY_MAXIMUM)
    )
    for node in (low, high):
        display = node.GetDisplayNode()
        assert display.GetWindowLevelMin() == pytest.approx(0)
        assert display.GetWindowLevelMax() == pytest.approx(np.log(2))
        assert not display.GetAutoWindowLevel()
    assert low.GetDisplayNode().GetColorNodeID() == high.GetDisplayNode().GetColorNodeID()
    assert low.GetName() != high.GetName()
    table = low.GetDisplayNode().GetColorNode()
    lightness = np.array([color_of(table, index) for index in range(256)]) @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0)


def color_of(table, index: int) -> list[float]:
    color = [0.0] * 4
    table.GetColor(index, color)
    return color[:3]

"""Segmentation nodes carry names, colours, codes and marks, and give back the very label they were made of."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scene_examples import CLASSES, GRIDS, MARKS, OBLIQUE, grid, random_label, random_volume

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.errors import CaseError
from SSLSegLib.scene.marks import PseudoLabelMarks, is_pseudo_label
from SSLSegLib.scene.segmentations import label_to_segmentation_node, segmentation_to_label
from SSLSegLib.scene.volumes import node_geometry, node_to_volume, volume_to_node, vtk_matrix

MOVE = np.eye(4)
MOVE[:3, :3] = OBLIQUE
MOVE[:3, 3] = [5, -6, 7]


def moved(scene, node):
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(vtk_matrix(MOVE))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def make(name: str = "oblique", marks: PseudoLabelMarks | None = MARKS):
    geometry = GRIDS[name]
    volume = volume_to_node(random_volume(geometry), "image")
    label = random_label(geometry)
    return volume, label, label_to_segmentation_node(label, CLASSES, volume, "labels", marks=marks)


@pytest.mark.parametrize("name", GRIDS)
def test_a_label_comes_back_voxel_for_voxel(scene, name: str) -> None:
    volume, label, node = make(name)
    back = segmentation_to_label(node, volume, CLASSES)
    assert np.array_equal(back.array, label.array)
    assert np.abs(back.geometry.ijk_to_ras - label.geometry.ijk_to_ras).max() < 1e-9


@pytest.mark.parametrize("name", GRIDS)
def test_slicers_own_export_gives_the_same_voxels(scene, name: str) -> None:
    """An independent witness: Slicer's export to a labelmap volume, class by class."""
    import slicer

    volume, label, node = make(name)
    for each in CLASSES:
        exported = slicer.util.arrayFromSegmentBinaryLabelmap(node, f"Segment_{each.value}", volume)
        assert np.array_equal(exported > 0, label.array == each.value)


def test_segments_have_the_name_colour_and_codes_of_their_class(scene) -> None:
    _, _, node = make()
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegment(i).GetName() for i in range(2)] == [each.name for each in CLASSES]
    for index, each in enumerate(CLASSES):
        assert np.allclose(segmentation.GetNthSegment(index).GetColor(), each.color_unit)
    assert "SCT^10200004^Liver" in segmentation.GetNthSegment(0).GetTerminology()
    assert segmentation.GetNumberOfLayers() == 1


def test_the_volume_is_reference_geometry_and_source_and_keeps_its_place(scene) -> None:
    import slicer

    volume, _, node = make()
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is volume


def test_a_pseudo_label_is_marked_on_the_node_and_on_every_segment(scene) -> None:
    _, _, node = make()
    assert is_pseudo_label(node)
    assert PseudoLabelMarks.of_node(node) == MARKS
    for index in range(2):
        assert PseudoLabelMarks.of_segment(node.GetSegmentation().GetNthSegment(index)) == MARKS


def test_a_pseudo_label_looks_different_from_an_experts_label(scene) -> None:
    _, _, pseudo = make()
    _, _, expert = make(marks=None)
    assert not is_pseudo_label(expert)
    assert PseudoLabelMarks.of_node(expert) is None
    assert pseudo.GetDisplayNode().GetOpacity2DFill() < 0.5 * expert.GetDisplayNode().GetOpacity2DFill()
    assert (
        pseudo.GetDisplayNode().GetSliceIntersectionThickness()
        > expert.GetDisplayNode().GetSliceIntersectionThickness()
    )


def test_marks_come_from_a_results_provenance(scene) -> None:
    from SSLSegLib.pseudolabels.label import make_provenance

    provenance = make_provenance("TFFS-MedSAM2", seed=None, labelled=["a"], options={}, weights_sha256="c0" * 32)
    marks = PseudoLabelMarks.from_provenance("case_7", provenance)
    assert PseudoLabelMarks.from_attributes(marks.attributes()) == marks
    assert (marks.seed, marks.labelled_cases, marks.weights_sha256) == (None, ("a",), "c0" * 32)


def test_a_label_of_another_grid_is_refused_before_a_node_appears(scene) -> None:
    volume = volume_to_node(random_volume(grid(OBLIQUE)), "image")
    before = scene.GetNumberOfNodes()
    with pytest.raises(CaseError, match=r"case_7.*grid of the volume.*image"):
        label_to_segmentation_node(random_label(grid()), CLASSES, volume, "labels", marks=MARKS)
    assert scene.GetNumberOfNodes() == before


def test_voxels_have_the_name_by_which_slicers_dicom_exporter_finds_them(scene) -> None:
    """It takes a segment whose voxels are named otherwise for empty."""
    _, _, node = make()
    for index in range(len(CLASSES)):
        labelmap = node.GetSegmentation().GetNthSegment(index).GetRepresentation("Binary labelmap")
        assert labelmap.GetPointData().GetArray("ImageScalars").GetRange()[1] > 0


@pytest.mark.parametrize("values", [(1, 2), (2, 9)])
def test_a_value_between_or_beyond_those_of_the_classes_is_refused(scene, values) -> None:
    volume = volume_to_node(random_volume(grid()), "image")
    classes = tuple(SegmentClass(value=value, name=f"class {value}") for value in values)
    geometry = node_geometry(volume)
    array = np.zeros(geometry.shape, dtype=np.uint8)
    array[0, 0, 0] = values[1]
    label_to_segmentation_node(LabelMap(array, geometry), classes, volume, "right")
    array[0, 0, 1] = 5
    with pytest.raises(CaseError, match="no class has: 5"):
        label_to_segmentation_node(LabelMap(array, geometry), classes, volume, "wrong")


def test_values_without_a_class_are_refused(scene) -> None:
    volume = volume_to_node(random_volume(grid()), "image")
    with pytest.raises(CaseError, match="no class has: 7"):
        label_to_segmentation_node(random_label(grid()), CLASSES[:1], volume, "labels")


def test_a_class_without_voxels_has_an_empty_segment(scene) -> None:
    volume = volume_to_node(random_volume(grid()), "image")
    label = LabelMap(np.zeros(grid().shape, dtype=np.uint8), grid())
    node = label_to_segmentation_node(label, CLASSES, volume, "labels")
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    assert not segmentation_to_label(node, volume, CLASSES).array.any()


def test_a_label_in_the_frame_of_a_transformed_volume_goes_under_the_same_transform(scene) -> None:
    volume = volume_to_node(random_volume(grid()), "image")
    transform = moved(scene, volume)
    label = random_label(grid())
    node = label_to_segmentation_node(label, CLASSES, volume, "labels")
    assert node.GetTransformNodeID() == transform.GetID()
    assert np.array_equal(segmentation_to_label(node, volume, CLASSES, transform="ignore").array, label.array)


def test_a_label_of_a_hardened_copy_lies_on_the_transformed_volume(scene) -> None:
    volume = volume_to_node(random_volume(grid()), "image")
    moved(scene, volume)
    world = node_to_volume(volume, transform="harden").geometry
    label = random_label(world)
    node = label_to_segmentation_node(label, CLASSES, volume, "labels")
    assert node.GetTransformNodeID() is None
    back = segmentation_to_label(node, volume, CLASSES, transform="harden")
    assert np.array_equal(back.array, label.array)
    assert back.geometry.matches(world)


def test_a_segmentation_under_its_own_transform_is_read_where_it_is_seen(scene) -> None:
    geometry = grid(spacing=(1, 1, 1), shape=(5, 7, 9))
    volume = volume_to_node(random_volume(geometry), "image")
    label = np.zeros(geometry.shape, dtype=np.uint8)
    label[2, 3, 4] = 1
    node = label_to_segmentation_node(LabelMap(label, geometry), CLASSES, volume, "labels")
    shift = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
    matrix = np.eye(4)
    matrix[:3, 3] = [2, -1, 1]
    shift.SetMatrixTransformToParent(vtk_matrix(matrix))
    node.SetAndObserveTransformNodeID(shift.GetID())
    back = segmentation_to_label(node, volume, CLASSES)
    assert np.argwhere(back.array).tolist() == [[3, 2, 6]]


def test_overlapping_segments_are_refused_or_go_to_the_later_class(scene) -> None:
    import slicer

    volume, label, node = make(marks=None)
    everywhere = np.ones(label.array.shape, dtype=np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(everywhere, node, "Segment_7", volume)
    with pytest.raises(CaseError, match=r"voxels belong to Lésion.* and to Liver"):
        segmentation_to_label(node, volume, CLASSES)
    assert (segmentation_to_label(node, volume, CLASSES, overlap="last").array == 7).all()


def test_segments_are_found_by_name_by_value_or_as_told(scene) -> None:
    volume, label, node = make()
    node.GetSegmentation().GetNthSegment(0).SetName("Leber")
    assert np.array_equal(segmentation_to_label(node, volume, CLASSES).array, label.array)
    kidney = (SegmentClass(value=9, name="Kidney"),)
    with pytest.raises(CaseError, match=r"none of the classes Kidney.*Leber"):
        segmentation_to_label(node, volume, kidney)
    told = segmentation_to_label(node, volume, kidney, segments={"Kidney": "Segment_1"})
    assert np.array_equal(told.array == 9, label.array == 1)


def test_a_segment_that_is_named_like_one_class_is_not_another_one_by_its_value(scene) -> None:
    volume, label, node = make()
    first, second = (each.name for each in CLASSES)
    node.GetSegmentation().RemoveSegment("Segment_1")
    node.GetSegmentation().GetNthSegment(0).SetName(f" {second} ")
    value = next(each.value for each in CLASSES if each.name == second)
    anew = (SegmentClass(value=value, name=first), SegmentClass(value=1, name=second))
    back = segmentation_to_label(node, volume, anew)
    assert np.array_equal(back.array == 1, label.array == value)
    assert not (back.array == value).any()
    with pytest.raises(CaseError, match="none of the classes"):
        segmentation_to_label(node, volume, anew[:1], by_value=False)


def test_a_segmentation_of_surfaces_is_read_without_changing_it(scene) -> None:
    geometry = grid(spacing=(1, 1, 1), shape=(12, 12, 12))
    volume = volume_to_node(random_volume(geometry), "image")
    label = np.zeros(geometry.shape, dtype=np.uint8)
    label[3:9, 3:9, 3:9] = 1
    node = label_to_segmentation_node(LabelMap(label, geometry), CLASSES[:1], volume, "labels")
    node.CreateClosedSurfaceRepresentation()
    node.SetSourceRepresentationToClosedSurface()
    node.GetSegmentation().RemoveRepresentation("Binary labelmap")
    back = segmentation_to_label(node, volume, CLASSES[:1])
    overlap = (back.array & label).sum() * 2 / (back.array.sum() + label.sum())
    assert overlap > 0.85
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")


def test_nothing_that_was_there_is_touched(scene) -> None:
    volume, label, theirs = make(marks=None)
    states = {node.GetID(): state(node) for node in (volume, theirs)}
    label_to_segmentation_node(label, CLASSES, volume, theirs.GetName(), marks=MARKS)
    segmentation_to_label(theirs, volume, CLASSES)
    node_to_volume(volume)
    assert {identifier: state(scene.GetNodeByID(identifier)) for identifier in states} == states
    assert np.array_equal(segmentation_to_label(theirs, volume, CLASSES).array, label.array)
    assert node_geometry(volume).matches(label.geometry)


def state(node) -> tuple:
    """What a person would notice: name, references, attributes, parts and the times they changed."""
    content = node.GetImageData() if node.IsA("vtkMRMLVolumeNode") else node.GetSegmentation()
    attributes = tuple(sorted((name, node.GetAttribute(name)) for name in node.GetAttributeNames()))
    return node.GetName(), node.GetTransformNodeID(), attributes, content.GetMTime(), node.GetDisplayNode().GetMTime()

"""Scene files and .seg.nrrd hold what was written: voxels, places, names, colours, marks."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scene_examples import CLASSES, GRIDS, MARKS, OBLIQUE, grid, random_label, random_volume

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_label, read_label_file, read_volume
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError, CohortError, SSLSegError
from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance
from SSLSegLib.pseudolabels.storage import SEGMENTS, load_pseudo_label, save_pseudo_label
from SSLSegLib.scene.cases import add_result
from SSLSegLib.scene.files import read_scene, read_segmentation, save_scene, write_scene, write_segmentation
from SSLSegLib.scene.marks import PseudoLabelMarks, is_pseudo_label
from SSLSegLib.scene.segmentations import label_to_segmentation_node, segmentation_to_label
from SSLSegLib.scene.volumes import UNCERTAINTY_MAXIMUM, node_geometry, node_to_volume, volume_to_node

ALL_GRIDS = list(GRIDS.values())


def write_case(folder: Path, number: int, role: str) -> Case:
    geometry = ALL_GRIDS[number]
    names = [f"images/case_{number}_{channel}.nrrd" for channel in range(2 if number == 0 else 1)]
    volume = random_volume(geometry, number, channels=len(names))
    for channel, name in enumerate(names):
        write_scalar(folder / name, volume.array[channel], geometry)
    label = None
    if role == "labelled":
        label = f"labels/case_{number}.nrrd"
        write_label(folder / label, random_label(geometry, number), CLASSES, reference=geometry)
    return Case(id=f"case_{number}", role=role, images=names, label=label)


def write_result(folder: Path, case: Case, number: int) -> None:
    geometry = ALL_GRIDS[number]
    probability = np.random.default_rng(number).random((2, *geometry.shape))
    provenance = make_provenance(
        "TFFS-MedSAM2", seed=5, labelled=["case_0"], options={"insertions": 5}, weights="tiny", weights_sha256="ab" * 32
    )
    label = build_pseudo_label(case.id, probability, geometry, CLASSES, largest_component=False, provenance=provenance)
    save_pseudo_label(folder / case.id, label, CLASSES)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    cases = [write_case(tmp_path, n, "labelled" if n < 2 else "unlabelled") for n in range(len(ALL_GRIDS))]
    for number, case in enumerate(cases[2:-1], start=2):
        write_result(tmp_path / "results", case, number)
    return Cohort(classes=CLASSES, cases=tuple(cases)).at(tmp_path)


def misplaced(node, expected: Geometry) -> float:
    """Largest difference of IJK to RAS, once the slices that Slicer reverses on loading are turned back."""
    matrix = node_geometry(node).ijk_to_ras
    if np.linalg.det(matrix) * np.linalg.det(expected.ijk_to_ras) < 0:
        back = np.diag([1.0, 1.0, -1.0, 1.0])
        back[2, 3] = expected.shape[0] - 1
        matrix = matrix @ back
    return np.abs(matrix - expected.ijk_to_ras).max()


def test_a_scene_file_comes_back_equal(scene, cohort: Cohort, tmp_path: Path) -> None:
    write_scene(tmp_path / "cohort.mrb", cohort, tmp_path / "results")
    found = read_scene(tmp_path / "cohort.mrb")
    assert list(found) == [case.id for case in cohort.cases]
    for case in cohort.cases:
        nodes = found[case.id]
        volume = read_volume(cohort, case)
        shown = node_to_volume(nodes.volumes, like=volume.geometry)
        assert np.array_equal(shown.array, volume.array)
        assert misplaced(nodes.volumes[0], volume.geometry) < 1e-6
        assert nodes.volumes[0].GetName() == case.id
        assert (nodes.label is not None) == (case.role == "labelled")
        if nodes.label is not None:
            label = segmentation_to_label(nodes.label, nodes.volumes[0], CLASSES, like=volume.geometry)
            assert np.array_equal(label.array, read_label(cohort, case).array)
            assert not is_pseudo_label(nodes.label)


def test_results_in_a_scene_file_come_back_equal_and_marked(scene, cohort: Cohort, tmp_path: Path) -> None:
    write_scene(tmp_path / "cohort.mrb", cohort, tmp_path / "results")
    found = read_scene(tmp_path / "cohort.mrb")
    assert found["case_6"].pseudo_label is None  # the unlabelled case that is not finished
    for case in cohort.unlabelled[:-1]:
        nodes, result = found[case.id], load_pseudo_label(tmp_path / "results" / case.id)
        label = segmentation_to_label(nodes.pseudo_label, nodes.volumes[0], CLASSES, like=result.geometry)
        assert np.array_equal(label.array, result.mask)
        assert label.array.any()
        uncertainty = node_to_volume(nodes.uncertainty, like=result.geometry)
        assert np.array_equal(uncertainty.array[0], result.uncertainty)
        assert misplaced(nodes.uncertainty, result.geometry) < 1e-6
        display = nodes.uncertainty.GetDisplayNode()
        assert display.GetWindowLevelMax() == pytest.approx(UNCERTAINTY_MAXIMUM)
        assert display.GetColorNode().GetName() == "Uncertainty (0 to ln 2)"
        marks = PseudoLabelMarks.of_node(nodes.pseudo_label)
        assert marks == PseudoLabelMarks.from_provenance(case.id, result.provenance)
        segmentation = nodes.pseudo_label.GetSegmentation()
        for index, each in enumerate(CLASSES):
            segment = segmentation.GetNthSegment(index)
            assert segment.GetName() == each.name
            assert np.allclose(segment.GetColor(), each.color_unit, atol=1e-5)
            assert PseudoLabelMarks.of_segment(segment) == marks
        assert "SCT^10200004^Liver" in segmentation.GetNthSegment(0).GetTerminology()
        assert nodes.pseudo_label.GetNodeReference("referenceImageGeometryRef") is nodes.volumes[0]


def test_each_case_has_a_folder_in_the_subject_hierarchy(scene, cohort: Cohort, tmp_path: Path) -> None:
    import slicer

    write_scene(tmp_path / "cohort.mrb", cohort, tmp_path / "results")
    found = read_scene(tmp_path / "cohort.mrb")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for case_id, nodes in found.items():
        for node in filter(None, (*nodes.volumes, nodes.label, nodes.pseudo_label, nodes.uncertainty)):
            parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
            assert hierarchy.GetItemName(parent) == case_id
            assert hierarchy.GetItemLevel(parent) == "Folder"


def test_writing_a_scene_file_leaves_the_current_scene_alone(scene, cohort: Cohort, tmp_path: Path) -> None:
    volume_to_node(random_volume(grid()), "mine")
    before = [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]
    write_scene(tmp_path / "cohort.mrb", cohort, tmp_path / "results")
    assert [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())] == before


def test_reading_a_scene_file_twice_keeps_what_was_there(scene, cohort: Cohort, tmp_path: Path) -> None:
    write_scene(tmp_path / "cohort.mrb", cohort, tmp_path / "results", cases=["case_2"])
    mine = volume_to_node(random_volume(grid(), 9), "case_2")
    first = read_scene(tmp_path / "cohort.mrb")
    voxels = node_to_volume(first["case_2"].volumes).array
    second = read_scene(tmp_path / "cohort.mrb")
    assert list(first) == list(second) == ["case_2"]
    assert first["case_2"].pseudo_label is not second["case_2"].pseudo_label
    assert np.array_equal(node_to_volume(first["case_2"].volumes).array, voxels)
    assert np.array_equal(node_to_volume(mine).array, random_volume(grid(), 9).array)
    table = first["case_2"].uncertainty.GetDisplayNode().GetColorNodeID()
    assert second["case_2"].uncertainty.GetDisplayNode().GetColorNodeID() == table


def test_the_file_is_replaced_whole_and_nothing_else_is_left(scene, cohort: Cohort, tmp_path: Path) -> None:
    target = tmp_path / "scenes" / "cohort.mrb"
    for _ in range(2):
        write_scene(target, cohort, cases=["case_0"])
    assert [path.name for path in target.parent.iterdir()] == ["cohort.mrb"]
    assert zipfile.ZipFile(target).namelist()[0].startswith("cohort/")


def test_a_failing_case_leaves_the_old_file_as_it_was(scene, cohort: Cohort, tmp_path: Path) -> None:
    target = tmp_path / "cohort.mrb"
    target.write_bytes(b"old")
    cohort.image_paths(cohort.case("case_3"))[0].write_bytes(b"broken")
    with pytest.raises(CaseError, match="case_3"):
        write_scene(target, cohort, tmp_path / "results")
    assert target.read_bytes() == b"old"
    assert not list(tmp_path.glob(".tmp*"))


def test_what_is_no_scene_is_refused(scene, cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "text.mrb").write_text("no zip")
    for name, message in (("text.mrb", "not a scene"), ("missing.mrb", "does not exist")):
        with pytest.raises(SSLSegError, match=message):
            read_scene(tmp_path / name)
    with pytest.raises(SSLSegError, match=r"does not end in .mrb"):
        write_scene(tmp_path / "scene.zip", cohort)
    with pytest.raises(CohortError, match="no case to write"):
        write_scene(tmp_path / "scene.mrb", cohort, cases=[])


def test_a_result_appears_beside_the_users_volume_in_new_nodes(scene, cohort: Cohort, tmp_path: Path) -> None:
    import slicer

    volume = volume_to_node(random_volume(ALL_GRIDS[3], 3), "thorax")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    nodes = add_result(volume, tmp_path / "results" / "case_3", CLASSES)
    again = add_result(volume, tmp_path / "results" / "case_3", CLASSES)
    for node in (nodes.pseudo_label, nodes.uncertainty, again.pseudo_label, again.uncertainty):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert nodes.pseudo_label.GetName() == "thorax pseudo-label"
    assert again.pseudo_label.GetName() != nodes.pseudo_label.GetName()
    assert is_pseudo_label(nodes.pseudo_label)
    assert not is_pseudo_label(nodes.uncertainty)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_result_finds_its_voxels_on_a_volume_that_slicer_loaded(
    scene, cohort: Cohort, tmp_path: Path, number
) -> None:
    """Slicer reverses the slices of left-handed images (two of these) when it loads a file; results do not."""
    import slicer

    path = cohort.image_paths(cohort.case(f"case_{number}"))[0]
    loaded = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), "loaded", 0)
    result = load_pseudo_label(tmp_path / "results" / f"case_{number}")
    nodes = add_result(loaded, tmp_path / "results" / f"case_{number}", CLASSES)
    voxel = np.argwhere(result.mask == 7)[0]
    place = result.geometry.ijk_to_ras @ [*voxel[::-1], 1]
    segment = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.pseudo_label, "Segment_7", loaded)
    there = np.round(np.linalg.inv(node_geometry(loaded).ijk_to_ras) @ place)[:3].astype(int)
    assert segment[tuple(there[::-1])] == 1
    assert segment.sum() == (result.mask == 7).sum()
    uncertain = slicer.util.arrayFromVolume(nodes.uncertainty)
    assert uncertain[tuple(there[::-1])] == result.uncertainty[tuple(voxel)]


def test_a_result_of_another_volume_is_refused_and_nothing_appears(scene, cohort: Cohort, tmp_path: Path) -> None:
    volume = volume_to_node(random_volume(grid(OBLIQUE, spacing=(1, 1, 1))), "other")
    before = scene.GetNumberOfNodes()
    with pytest.raises(CaseError, match=r"case_3.*other"):
        add_result(volume, tmp_path / "results" / "case_3", CLASSES)
    assert scene.GetNumberOfNodes() == before


@pytest.mark.parametrize("name", GRIDS)
def test_a_segmentation_file_comes_back_equal_in_slicer_and_without(scene, name: str, tmp_path: Path) -> None:
    volume = volume_to_node(random_volume(GRIDS[name]), "image")
    label = random_label(GRIDS[name])
    node = label_to_segmentation_node(label, CLASSES, volume, "labels", marks=MARKS)
    path = write_segmentation(tmp_path / "labels.seg.nrrd", node)
    assert node.GetStorageNode() is None
    back = read_segmentation(path)
    assert np.array_equal(segmentation_to_label(back, volume, CLASSES).array, label.array)
    for index, each in enumerate(CLASSES):
        segment = back.GetSegmentation().GetNthSegment(index)
        assert (segment.GetName(), PseudoLabelMarks.of_segment(segment)) == (each.name, MARKS)
        assert np.allclose(segment.GetColor(), each.color_unit, atol=1e-5)
    assert is_pseudo_label(back)
    headless = read_label_file(path, CLASSES)  # SimpleITK's reader, an independent witness
    assert np.array_equal(headless.array, label.array)
    assert headless.geometry.matches(GRIDS[name])


def test_a_result_folders_segments_open_in_slicer_as_a_pseudo_label(scene, cohort: Cohort, tmp_path: Path) -> None:
    volume = volume_to_node(random_volume(ALL_GRIDS[2]), "image")
    node = read_segmentation(tmp_path / "results" / "case_2" / SEGMENTS)
    result = load_pseudo_label(tmp_path / "results" / "case_2")
    assert np.array_equal(segmentation_to_label(node, volume, CLASSES).array, result.mask)
    assert is_pseudo_label(node)
    marks = PseudoLabelMarks.of_segment(node.GetSegmentation().GetNthSegment(0))
    assert (marks.method, marks.seed, marks.labelled_cases) == ("TFFS-MedSAM2", 5, ("case_0",))


def test_a_missing_segmentation_file_leaves_no_node(scene, vtk_errors: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.seg.nrrd").write_text("no NRRD")
    for name in ("missing.seg.nrrd", "broken.seg.nrrd"):
        with pytest.raises(SSLSegError, match="cannot be read"):
            read_segmentation(tmp_path / name)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert any("broken.seg.nrrd" in message for message in vtk_errors)
    vtk_errors.clear()


def test_the_whole_current_scene_can_be_saved(scene, tmp_path: Path) -> None:
    volume_to_node(random_volume(grid()), "mine")
    save_scene(scene, tmp_path / "mine.mrb")
    scene.Clear(0)
    assert read_scene(tmp_path / "mine.mrb") == {}  # nothing of this software's in it
    assert np.array_equal(node_to_volume(scene.GetFirstNodeByName("mine")).array, random_volume(grid()).array)

import numpy as np
import pytest
import slicer
from helpers_module import results_of

from SSLSegLib.cases.reading import read_image, read_label_file
from SSLSegLib.errors import SSLSegError
from SSLSegLib.pseudolabels.storage import read_result


def export(panel, folder, **wanted):
    from SSLSegPanel.export import ExportChoices, export_steps  # needs the host: not before it has started
    from SSLSegPanel.prepare import finish

    return finish(export_steps(panel.session.cases, ExportChoices(folder=folder, **wanted)))


def accept_first(panel):
    panel.ui.resultsTable.selectRow(0)
    case = panel.resultsSection.current()
    panel.ui.acceptButton.click()
    return case


def test_accepted_cases_are_written_in_the_grid_of_their_scan_and_others_are_not(
    host, reviewing, finished_job, inputs, tmp_path
):
    case = accept_first(reviewing)
    reviewing.ui.exportEdit.setCurrentPath(str(tmp_path / "out"))
    assert reviewing.ui.exportButton.text == "Export 1 cases"
    reviewing.ui.exportButton.click()
    host.wait_until(lambda: "files in" in reviewing.ui.exportLabel.text, 30)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"{case.id}.nii.gz", f"{case.id}.seg.nrrd", "manifest.json", "review.csv"]
    scan = read_image(inputs.cohort.parent / "images" / f"{case.id}.nii.gz")
    classes = read_result(finished_job / "results" / case.id).classes
    label = read_label_file(tmp_path / "out" / f"{case.id}.nii.gz", classes)
    assert label.geometry.matches(scan.geometry)
    assert np.array_equal(label.array, results_of(finished_job)[case.id])
    assert f"{case.id},{case.id},accepted" in (tmp_path / "out" / "review.csv").read_text()


def test_a_file_of_that_name_is_never_overwritten(reviewing, tmp_path):
    case = accept_first(reviewing)
    there = tmp_path / "out" / f"{case.id}.nii.gz"
    there.parent.mkdir()
    there.write_text("mine")
    with pytest.raises(SSLSegError, match="already in"):
        export(reviewing, there.parent)
    assert there.read_text() == "mine"
    assert [path.name for path in there.parent.iterdir()] == [there.name]


def test_nothing_to_export_is_said_by_the_button(reviewing):
    assert not reviewing.ui.exportButton.enabled
    assert "accepted and corrected" in reviewing.ui.exportButton.toolTip


def test_dicom_is_refused_for_scans_that_are_not_from_dicom(reviewing, tmp_path):
    accept_first(reviewing)
    with pytest.raises(SSLSegError, match="DICOM SEG"):
        export(reviewing, tmp_path / "out", nifti=False, segmentation=False, dicom=True, manifest=False)


def test_exported_segments_name_the_algorithm_for_dicom(reviewing):
    case = accept_first(reviewing)
    from SSLSegLib.scene.marks import get_tag

    segment = case.result.GetSegmentation().GetNthSegment(0)
    assert get_tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    assert get_tag(segment, "DICOM.SegmentAlgorithmName").startswith("TFFS-MedSAM2")


def test_results_lie_beside_their_volume_in_the_subject_hierarchy(reviewing):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    case = reviewing.session.cases.find("c2")
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in (case.volume, case.result)}
    assert len(parents) == 1
    assert case.result.GetNodeReference("referenceImageGeometryRef") is case.volume

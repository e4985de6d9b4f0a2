import numpy as np
import pytest
import slicer
from helpers_module import results_of, segment_masks
from slicerhost.extension_fakes import install_dicom_fake, remove_extension_fakes

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
    assert reviewing.ui.exportButton.text == "Export 1 case"
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
    assert "Accepted and corrected" in reviewing.ui.exportButton.toolTip


DICOM = {"nifti": False, "segmentation": False, "dicom": True, "manifest": False}


@pytest.fixture
def dicom(reviewing):
    """The scans as if they came from a DICOM database, and a fake of Slicer's exporter."""
    for case in reviewing.session.cases:
        case.volume.SetAttribute("DICOM.instanceUIDs", f"1.2.{case.id}.1 1.2.{case.id}.2")
    yield install_dicom_fake(tuple(f"1.2.{name}.{number}" for name in ("c2", "c3") for number in (1, 2)))
    remove_extension_fakes()


def test_dicom_is_refused_for_scans_that_are_not_from_dicom(reviewing, tmp_path):
    install_dicom_fake(())
    accept_first(reviewing)
    with pytest.raises(SSLSegError, match="not loaded from DICOM"):
        export(reviewing, tmp_path / "out", **DICOM)
    remove_extension_fakes()


def test_a_slicer_without_exporter_is_told(reviewing, tmp_path):
    accept_first(reviewing)
    with pytest.raises(SSLSegError, match=r"Slicer 5\.12"):
        export(reviewing, tmp_path / "out", **DICOM)


def test_accepted_cases_go_through_slicers_dicom_exporter_with_algorithm_and_codes(dicom, reviewing, tmp_path):
    case = accept_first(reviewing)
    assert export(reviewing, tmp_path / "out", **DICOM) == [tmp_path / "out" / f"{case.id}.SEG.dcm"]
    ((name, segments, metadata),) = dicom.exports
    assert name == f"{case.id}.SEG.dcm"
    assert [(kind, label) for label, kind, _algorithm in segments] == [
        ("AUTOMATIC", label) for label, mask in segment_masks(case.result, case.volume).items() if mask.any()
    ]
    assert all(algorithm.startswith("TFFS-MedSAM2") for _label, _kind, algorithm in segments)
    assert metadata == {"SeriesDescription": f"SSLSeg {case.id}"}


def test_a_class_that_was_not_found_is_left_out_of_dicom(dicom, reviewing, tmp_path):
    from SSLSegPanel.review import accept

    case = accept_first(reviewing)
    segmentation = case.result.GetSegmentation()
    empty = segmentation.GetSegmentIdBySegmentName("class 1")
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        np.zeros(slicer.util.arrayFromVolume(case.volume).shape, np.uint8), case.result, empty, case.volume
    )
    segmentation.CollapseBinaryLabelmaps()
    accept(case)  # a click would have to keep the correction first: nobody drew here, the method found nothing
    export(reviewing, tmp_path / "out", **DICOM)
    assert [label for label, _kind, _algorithm in dicom.exports[0][1]] == ["class 2"]


def test_a_corrected_label_is_told_as_drawn_with_a_person(dicom, reviewing, tmp_path):
    case = accept_first(reviewing)
    from SSLSegPanel import review

    review.begin_correction(case)
    review.finish_correction(case)
    export(reviewing, tmp_path / "out", **DICOM)
    assert {kind for _label, kind, _algorithm in dicom.exports[0][1]} == {"SEMIAUTOMATIC"}


def test_dicom_files_that_left_the_database_and_words_of_the_exporter_are_told(dicom, reviewing, tmp_path):
    case = accept_first(reviewing)
    dicom.fails_with = RuntimeError("itkimage2segimage failed:\nERROR: no such tag")
    with pytest.raises(SSLSegError, match="no such tag"):
        export(reviewing, tmp_path / "out", **DICOM)
    case.volume.SetAttribute("DICOM.instanceUIDs", "1.2.gone")
    with pytest.raises(SSLSegError, match="Import them again"):
        export(reviewing, tmp_path / "out", **DICOM)
    assert not list((tmp_path / "out").glob("*"))


def test_results_lie_beside_their_volume_in_the_subject_hierarchy(reviewing):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    case = reviewing.session.cases.find("c2")
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in (case.volume, case.result)}
    assert len(parents) == 1
    assert case.result.GetNodeReference("referenceImageGeometryRef") is case.volume

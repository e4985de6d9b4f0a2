"""Folders as people have them, made as real files."""

import json
import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.discover import discover_cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.preflight import check_cohort
from SSLSegLib.cases.reading import read_volume
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.errors import CohortError

LIVER = [SegmentClass(value=1, name="liver")]


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(seed).integers(0, 99, (6, 5, 4), np.int16), np.eye(4)), path)


def label(path, values=(0, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(1).choice(np.array(values, np.uint8), (6, 5, 4))
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def roles(cohort):
    return {case.id: case.role for case in cohort.cases}


def test_images_and_labels_of_one_name_belong_together(tmp_path):
    for name in ("a", "b", "c"):
        image(tmp_path / f"images/{name}.nii.gz")
    label(tmp_path / "labels/a.nii.gz", (0, 1, 3))
    label(tmp_path / "references/b.nii.gz")
    cohort = discover_cohort(tmp_path)
    assert roles(cohort) == {"a": "labelled", "b": "unlabelled", "c": "unlabelled"}
    assert cohort.case("a").images == ("images/a.nii.gz",)
    assert cohort.case("a").label == "labels/a.nii.gz"
    assert cohort.case("b").reference == "references/b.nii.gz"
    assert [(one.value, one.name) for one in cohort.classes] == [(1, "class 1"), (3, "class 3")]
    assert cohort.modality == "MR"
    assert not (tmp_path / "cohort.json").exists()
    assert check_cohort(cohort.save(tmp_path / "cohort.json")) == []
    assert Cohort.load(tmp_path) == cohort


def test_labels_may_be_of_another_format_and_named_segments_name_the_classes(tmp_path):
    image(tmp_path / "images/a.nii.gz")
    image(tmp_path / "images/b.nii.gz")
    grid = Geometry((4, 5, 6), np.eye(4))
    segments = (SegmentClass(value=3, name="Left Kidney"), SegmentClass(value=1, name="Liver"))
    array = np.random.default_rng(0).choice(np.array([0, 1, 3], np.uint8), grid.shape)
    (tmp_path / "labels").mkdir()
    write_label(tmp_path / "labels/a.seg.nrrd", LabelMap(array, grid), segments, reference=grid)
    cohort = discover_cohort(tmp_path, name="kidneys")
    assert [(one.value, one.name) for one in cohort.classes] == [(1, "Left Kidney"), (2, "Liver")]
    assert cohort.case("a").label == "labels/a.seg.nrrd"
    assert cohort.name == "kidneys"
    assert check_cohort(cohort) == []


def test_channels_are_grouped(tmp_path):
    for name in ("a", "b"):
        for channel in (0, 1):
            image(tmp_path / f"images/{name}_{channel:04d}.nii.gz", channel)
    label(tmp_path / "labels/a.nii.gz")
    cohort = discover_cohort(tmp_path)
    assert cohort.case("b").images == ("images/b_0000.nii.gz", "images/b_0001.nii.gz")
    assert read_volume(cohort, cohort.case("a")).array.shape == (2, 4, 5, 6)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (0, 1, 2)])
def test_patients_with_four_digits_are_not_taken_for_channels(numbers, tmp_path):
    for number in numbers:
        image(tmp_path / f"images/scan_{number:04d}.nii.gz")
    label(tmp_path / f"labels/scan_{numbers[0]:04d}.nii.gz")
    assert len(discover_cohort(tmp_path).cases) == 3


def test_numbers_that_do_not_count_from_zero_are_no_channels(tmp_path):
    for name in ("north_0001", "north_0002", "south_0001"):
        image(tmp_path / f"images/{name}.nii.gz")
    assert len(discover_cohort(tmp_path, classes=LIVER).cases) == 3


def nnunet(tmp_path, labels=None, channels=None, unlabelled=()):
    for name in ("p1", "p2", *unlabelled):
        for channel in range(2):
            image(tmp_path / f"imagesTr/{name}_{channel:04d}.nii.gz")
    for name in ("p1", "p2"):
        label(tmp_path / f"labelsTr/{name}.nii.gz")
    for channel in range(2):
        image(tmp_path / f"imagesTs/t1_{channel:04d}.nii.gz")
    label(tmp_path / "labelsTs/t1.nii.gz")
    content = {
        "channel_names": channels or {"0": "T1", "1": "T2"},
        "labels": labels or {"background": 0, "liver": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))


def test_an_nnunet_data_set_brings_its_classes_and_channels(tmp_path):
    nnunet(tmp_path)
    cohort = discover_cohort(tmp_path)
    assert roles(cohort) == {"p1": "labelled", "p2": "labelled", "t1": "unlabelled"}
    assert [(one.value, one.name) for one in cohort.classes] == [(1, "liver")]
    assert cohort.case("t1").images == ("imagesTs/t1_0000.nii.gz", "imagesTs/t1_0001.nii.gz")
    assert cohort.case("t1").reference == "labelsTs/t1.nii.gz"
    assert cohort.modality == "MR"
    assert check_cohort(cohort) == []


def test_with_unlabelled_training_images_those_for_testing_stay_test_cases(tmp_path):
    nnunet(tmp_path, unlabelled=("u1",))
    assert roles(discover_cohort(tmp_path)) == {
        "p1": "labelled",
        "p2": "labelled",
        "t1": "test",
        "u1": "unlabelled",
    }


def test_the_older_dataset_json_and_ct_are_understood(tmp_path):
    nnunet(tmp_path, labels={"0": "background", "1": "liver"}, channels={"0": "CT", "1": "CT"})
    cohort = discover_cohort(tmp_path)
    assert [(one.value, one.name) for one in cohort.classes] == [(1, "liver")]
    assert cohort.modality == "CT"
    assert (cohort.window.level, cohort.window.width) == (40, 400)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no dataset.json"),
        ("{", "not nnU-Net's"),
        ('{"labels": 3}', "not nnU-Net's"),
        ('{"labels": {"background": 0, "whole": [1, 2]}}', "region-based"),
    ],
)
def test_a_wrong_dataset_json_is_refused(content, said, tmp_path):
    nnunet(tmp_path)
    (tmp_path / "dataset.json").unlink()
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(CohortError, match=said):
        discover_cohort(tmp_path)


def series(folder, slices=3):
    folder.mkdir(parents=True)
    uid = generate_uid()
    for index in range(slices):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID = uid, uid
        data.Modality, data.PatientName, data.InstanceNumber = "MR", "Secret^Name", index + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 4.0 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness, data.Rows, data.Columns = [1, 1], 4, 5, 6
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.PixelData = np.random.default_rng(index).integers(0, 900, (5, 6), np.uint16).tobytes()
        data.save_as(folder / f"{index}", enforce_file_format=True)  # no ending, as scanners write them


def test_dicom_series_in_a_folder_become_cases_named_by_their_folder_not_by_the_patient(tmp_path):
    series(tmp_path / "study 1" / "T2 axial")
    series(tmp_path / "study 2" / "other")
    cohort = discover_cohort(tmp_path, classes=LIVER)
    assert roles(cohort) == {"T2-axial": "unlabelled", "other": "unlabelled"}
    assert cohort.case("T2-axial").images == ("study 1/T2 axial",)
    assert read_volume(cohort, cohort.case("other")).array.shape == (1, 3, 5, 6)
    assert "Secret" not in json.dumps(cohort.to_dict())


def test_a_list_of_dicom_series_and_series_under_images_are_understood(tmp_path):
    for name in ("a", "b"):
        series(tmp_path / "images" / name)
    listed = discover_cohort([tmp_path / "images/a", tmp_path / "images/b"], classes=LIVER)
    assert listed.case("b").images == ("b",)
    assert listed.folder == tmp_path / "images"
    found = discover_cohort(tmp_path, classes=LIVER)
    assert found.case("b").images == ("images/b",)
    assert found.image_paths(found.case("b")) == listed.image_paths(listed.case("b"))
    with pytest.raises(CohortError, match="No DICOM series"):
        discover_cohort([])


def test_two_series_folders_of_one_name_are_refused(tmp_path):
    series(tmp_path / "p1" / "t2")
    series(tmp_path / "p2" / "t2")
    with pytest.raises(CohortError, match="Two series folders"):
        discover_cohort(tmp_path, classes=LIVER)


def test_names_become_safe_ids_and_collisions_are_refused(tmp_path):
    image(tmp_path / "images/patient é 1.nii.gz")
    image(tmp_path / "images/con.nii.gz")
    assert sorted(roles(discover_cohort(tmp_path, classes=LIVER))) == ["case-con", "patient-1"]
    image(tmp_path / "images/patient 1.nii.gz")
    with pytest.raises(CohortError, match="would both be case 'patient-1'"):
        discover_cohort(tmp_path, classes=LIVER)


def test_two_files_of_one_name_are_refused(tmp_path):
    image(tmp_path / "images/a.nii.gz")
    image(tmp_path / "images/a.nii")
    with pytest.raises(CohortError, match="Several images"):
        discover_cohort(tmp_path, classes=LIVER)
    (tmp_path / "images/a.nii").unlink()
    label(tmp_path / "labels/a.nii.gz")
    shutil.copy(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii")
    with pytest.raises(CohortError, match="Several files"):
        discover_cohort(tmp_path, classes=LIVER)


def test_a_folder_without_images_or_classes_says_what_is_expected(tmp_path):
    with pytest.raises(CohortError, match="no folder"):
        discover_cohort(tmp_path / "no")
    (tmp_path / "images").mkdir()
    with pytest.raises(CohortError, match=r"images is one folder of a data set.*the folder above"):
        discover_cohort(tmp_path / "images")
    (tmp_path / "images").rmdir()
    with pytest.raises(CohortError, match="expected images/"):
        discover_cohort(tmp_path)
    image(tmp_path / "images/a.nii.gz")
    with pytest.raises(CohortError, match="no labels were found"):
        discover_cohort(tmp_path)

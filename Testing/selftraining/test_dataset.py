"""The cohort as an nnU-Net dataset."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK

from SSLSegLib.cases.reading import read_image
from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels.review import CORRECTED_LABEL, save_review
from SSLSegLib.selftraining.dataset import (
    ClassValues,
    export_dataset,
    nnunet_key,
    read_decisions,
    result_folders,
)
from SSLSegLib.selftraining.folders import DATASET, WorkFolder

from .conftest import CLASSES, make_cohort


@pytest.fixture
def cohort(tmp_path):
    return make_cohort(tmp_path / "cohort", labelled=1, unlabelled=2, test=1)


def _export(cohort, folder, **events):
    work = WorkFolder(folder)
    heard = []
    folders = result_folders(cohort, cohort.folder / "results")
    export_dataset(work, cohort, folders, lambda event, **fields: heard.append((event, fields)))
    return work, json.loads((work.raw / DATASET / "dataset.json").read_text()), heard


def test_class_values_become_consecutive_and_come_back():
    values = ClassValues(CLASSES)
    labels = np.array([[[0, 2, 5]]], np.uint8)
    assert values.to_nnunet(labels).tolist() == [[[0, 1, 2]]]
    assert (values.from_nnunet(values.to_nnunet(labels)) == labels).all()
    assert values.nnunet_labels == {"background": 0, "ball": 1, "box": 2}


def test_names_that_mean_something_else_to_nnunet_are_not_given_to_it():
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    classes = [CLASSES[0].model_copy(update={"name": "background"}), CLASSES[1].model_copy(update={"name": "ignore"})]
    manager = LabelManager(ClassValues(classes).nnunet_labels, None)
    assert manager.foreground_labels == [1, 2]
    assert not manager.has_ignore_label


def test_test_cases_and_references_do_not_appear(cohort, tmp_path):
    shutil.rmtree(cohort.folder / "references")
    _, dataset, _ = _export(cohort, tmp_path / "work")
    assert sorted(dataset["dataset"]) == ["c0", "c1", "c2"]
    assert "/references/" not in json.dumps(dataset)


def test_several_channel_files_are_named_in_order(tmp_path):
    cohort = make_cohort(tmp_path / "two", labelled=1, unlabelled=1, test=0, channels=2)
    _, dataset, _ = _export(cohort, tmp_path / "work")
    assert dataset["channel_names"] == {"0": "MR", "1": "MR"}
    assert [path.rsplit("_", 1)[1] for path in dataset["dataset"]["c0"]["images"]] == ["0.nii.gz", "1.nii.gz"]


def test_channels_in_one_file_are_taken_apart(cohort, tmp_path):
    path = cohort.image_paths(cohort.case("c0"))[0]
    for case in cohort.cases:
        path = cohort.image_paths(case)[0]
        image = SimpleITK.ReadImage(str(path))
        SimpleITK.WriteImage(SimpleITK.Compose(image, image * 2), str(path))
    _, dataset, _ = _export(cohort, tmp_path / "work")
    first, second = (read_image(file) for file in dataset["dataset"]["c1"]["images"])
    assert np.allclose(second.array, 2 * first.array)
    assert first.geometry.matches(read_image(cohort.image_paths(cohort.case("c1"))).geometry)


def test_a_case_without_a_pseudo_label_gets_an_empty_one_and_a_warning(cohort, tmp_path):
    shutil.rmtree(cohort.folder / "results" / "c1")
    work, _, heard = _export(cohort, tmp_path / "work")
    assert not SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(work.labels / "c1.nii.gz"))).any()
    assert [fields["case"] for event, fields in heard if event == "warning"] == ["c1"]


def test_a_pseudo_label_in_another_grid_is_refused_by_name(cohort, tmp_path):
    path = cohort.folder / "results" / "c2" / "labels.nii.gz"
    image = SimpleITK.ReadImage(str(path))
    image.SetOrigin((0.0, 0.0, 99.0))
    SimpleITK.WriteImage(image, str(path))
    with pytest.raises(CaseError, match=r"Case c2.*another grid"):
        _export(cohort, tmp_path / "work")


def test_names_that_nnunet_would_take_for_labels_are_changed_without_clashes():
    names = ["a_seg", "a_seg-", "a", "a-"]
    keys = [nnunet_key(name) for name in names]
    assert len(set(keys)) == 4
    assert not any(key.endswith("_seg") for key in keys)
    assert nnunet_key("plain_01") == "plain_01"


def test_reviews_decide_and_stale_rejections_do_not(cohort):
    folders = result_folders(cohort, cohort.folder / "results")
    save_review(folders["c1"], "rejected")
    shutil.copyfile(folders["c2"] / "labels.nii.gz", folders["c2"] / CORRECTED_LABEL)
    save_review(folders["c2"], "corrected")
    decisions = read_decisions(folders)
    assert decisions.rejected == {"c1"}
    assert decisions.corrected == {"c2": folders["c2"] / CORRECTED_LABEL}
    image = SimpleITK.ReadImage(str(folders["c1"] / "labels.nii.gz"))
    SimpleITK.WriteImage(image * 0, str(folders["c1"] / "labels.nii.gz"))
    assert read_decisions(folders).rejected == frozenset()

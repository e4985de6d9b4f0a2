"""The final model on images, against nnU-Net's stock predictor and in the exact geometry."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
import torch

from SSLSegLib.cases.reading import read_geometry, read_image, read_label_file
from SSLSegLib.errors import CaseError
from SSLSegLib.files import sha256_of, write_json
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.export import export_model
from SSLSegLib.selftraining.model import find_round, load_model
from SSLSegLib.selftraining.predict import image_name, named_images, predict_case, predict_cases, predict_files

from .conftest import CLASSES


@pytest.fixture(scope="module")
def model(finished):
    return load_model(find_round(finished.work))


@pytest.fixture(scope="module")
def found(finished, model):
    (case,) = finished.cohort.test
    return predict_case(model, finished.cohort.image_paths(case), CLASSES, case_id=case.id)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    return export_model(find_round(finished.work), tmp_path_factory.mktemp("export"), finished.cohort)


@pytest.fixture
def stock(exported, monkeypatch):
    """The stock predictor over the exported folder; torchvision and timm cannot be imported."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(exported), None, "checkpoint_final.pth")
    return predictor


def test_labels_and_probabilities_equal_the_stock_predictors_over_the_exported_folder(finished, found, stock, tmp_path):
    image = finished.cohort.image_paths(finished.cohort.test[0])[0]
    assert len(stock.list_of_parameters) == 2
    stock.predict_from_files_sequential([[str(image)]], [str(tmp_path / "out")], save_probabilities=True)
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out.nii.gz")))
    assert (np.array([0, 2, 5])[labels] == found.labels).all()
    probabilities = np.load(tmp_path / "out.npz")["probabilities"]
    assert np.abs(probabilities[1:] - found.probability).max() < 1e-6


def test_the_stock_command_line_gives_the_same_labels_from_the_exported_folder(finished, found, exported, tmp_path):
    """``nnUNetv2_predict_from_modelfolder`` as a user would run it, in a process of its own with its own workers."""
    image = finished.cohort.image_paths(finished.cohort.test[0])[0]
    (tmp_path / "images").mkdir()
    shutil.copyfile(image, tmp_path / "images" / "new_0000.nii.gz")
    command = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    places = ["-i", tmp_path / "images", "-o", tmp_path / "out", "-m", exported]
    few = ["-f", "0", "1", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    done = subprocess.run([command, *places, *few], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out" / "new.nii.gz")))
    assert (np.array([0, 2, 5])[labels] == found.labels).all()
    assert found.labels.any()


def test_the_exported_folder_names_no_training_image_and_says_the_class_values(exported, finished):
    text = "".join(path.read_text() for path in exported.glob("*.json"))
    assert str(finished.cohort.folder) not in text
    assert json.loads((exported / "dataset.json").read_text())["sslseg"]["class_values"] == {"ball": 2, "box": 5}
    with pytest.raises(SelfTrainingError, match="there already"):
        export_model(find_round(finished.work), exported.parent.parent, finished.cohort)


def test_disagreement_is_the_spread_of_the_folds_probabilities(finished, model, found):
    images = finished.cohort.image_paths(finished.cohort.test[0])
    alone = []
    for weights in model.weights:
        of_one = type(model)(**{**model.__dict__, "weights": [weights]})
        one = predict_case(of_one, images, CLASSES)
        assert not one.disagreement.any()
        alone.append(one.probability)
    assert np.allclose(found.disagreement, np.abs(alone[0] - alone[1]).max(axis=0) / 2, atol=1e-6)
    assert len(found.fold_dice) == 2


def test_prediction_files_lie_in_the_exact_grid_and_finished_ones_are_kept(finished, model, found, tmp_path):
    (case,) = finished.cohort.test
    assert predict_cases(model, finished.cohort, [case], tmp_path) == [case.id]
    grid, folder = read_geometry(finished.cohort, case), tmp_path / case.id
    label = read_label_file(folder / "labels.nii.gz", CLASSES)
    assert label.geometry.matches(grid, tolerance=1e-4)
    assert (label.array == found.labels).all()
    names = ("probability_2.nii.gz", "probability_5.nii.gz", "disagreement.nii.gz")
    assert all(read_image(folder / name).geometry.matches(grid, tolerance=1e-4) for name in names)
    assert (read_label_file(folder / "labels.seg.nrrd", CLASSES).array == found.labels).sum() > 0
    assert json.loads((folder / "result.json").read_text())["model"] == "round 2"
    assert predict_cases(model, finished.cohort, [case], tmp_path) == []


class FakeModel:
    """Knows its checkpoints and can predict nothing: nothing may come so far."""

    def __init__(self, checkpoint):
        self.report = SimpleNamespace(checkpoints={0: checkpoint})

    def predictor(self, device):
        raise AssertionError("a prediction was begun")


@pytest.mark.parametrize(
    ("image", "checkpoint", "said"), [("b", "one", "another image"), ("a", "two", "another model")]
)
def test_a_finished_prediction_is_never_taken_for_that_of_another_image_or_model(tmp_path, image, checkpoint, said):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t1.nii.gz").write_text(name)
    done = {"images": [sha256_of(tmp_path / "a" / "t1.nii.gz")], "checkpoints": {"0": "one"}}
    write_json(tmp_path / "out" / "t1" / "result.json", done)
    images = named_images([tmp_path / image / "t1.nii.gz"])
    with pytest.raises(CaseError, match=said):
        predict_files(FakeModel(checkpoint), images, CLASSES, tmp_path / "out")


def test_two_images_of_one_name_are_refused():
    with pytest.raises(CaseError, match="one name"):
        named_images([Path("anna/t1.nii.gz"), Path("bert/t1.nii.gz")])


def test_an_image_with_other_channels_is_refused(finished, model):
    image = finished.cohort.image_paths(finished.cohort.test[0])[0]
    with pytest.raises(CaseError, match="2 channels"):
        predict_case(model, [image, image], CLASSES, case_id="new")


def test_a_round_that_is_not_finished_is_refused(finished):
    with pytest.raises(SelfTrainingError, match="round 7"):
        find_round(finished.work, "7")
    with pytest.raises(SelfTrainingError, match="baseline"):
        find_round(finished.work, "baseline")
    with pytest.raises(SelfTrainingError, match="no round"):
        find_round(finished.work, "last")


@pytest.mark.parametrize(("file", "name"), [("a/new_01.nii.gz", "new_01"), ("x.y.nrrd", "x.y"), ("dicom", "dicom")])
def test_predictions_are_named_like_their_image(file, name):
    assert image_name(Path(file)) == name

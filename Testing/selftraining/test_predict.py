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

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_geometry, read_image, read_label_file
from SSLSegLib.cases.writing import write_scalar
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


GRID = Geometry((2, 3, 4), np.eye(4))


@pytest.fixture
def scan(tmp_path):
    """A small image file."""
    write_scalar(tmp_path / "t1.nii.gz", np.zeros(GRID.shape, np.float32), GRID)
    return tmp_path / "t1.nii.gz"


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
        write_scalar(tmp_path / name / "t1.nii.gz", np.full((2, 3, 4), ord(name), np.float32), GRID)
    done = {"images": [sha256_of(tmp_path / "a" / "t1.nii.gz")], "checkpoints": {"0": "one"}}
    write_json(tmp_path / "out" / "t1" / "result.json", done)
    images = named_images([tmp_path / image / "t1.nii.gz"])
    with pytest.raises(CaseError, match=said):
        predict_files(FakeModel(checkpoint), images, CLASSES, tmp_path / "out")


@pytest.mark.parametrize("there", ["t1/labels.nii.gz", "t1"])
def test_a_folder_that_somebody_else_has_filled_is_not_written_into(tmp_path, scan, there):
    mine = tmp_path / "out" / there
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    with pytest.raises(CaseError, match="holds no prediction"):
        predict_files(FakeModel("one"), named_images([scan]), CLASSES, tmp_path / "out")
    assert mine.read_text() == "my own"


def test_what_a_killed_prediction_left_is_not_mixed_with_the_new_one(finished, model, tmp_path):
    (case,) = finished.cohort.test
    half = tmp_path / f".part-{case.id}"
    half.mkdir()
    (half / "probability_9.nii.gz").write_text("half")
    predict_cases(model, finished.cohort, [case], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [case.id]
    assert not (tmp_path / case.id / "probability_9.nii.gz").exists()


def test_a_missing_or_damaged_image_is_said_before_the_others_are_predicted(tmp_path, scan):
    (tmp_path / "damaged.nii.gz").write_bytes(b"")
    for wrong in ("nowhere", "damaged"):
        images = named_images([scan, tmp_path / f"{wrong}.nii.gz"])
        with pytest.raises(CaseError, match=f"{wrong}.nii.gz"):
            predict_files(FakeModel("one"), images, CLASSES, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_with_voxels_that_are_no_number_is_refused(model, tmp_path):
    array = np.ones((4, 8, 8), np.float32)
    array[1, 2, 3] = np.nan
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(tmp_path / "t1.nrrd"))
    with pytest.raises(CaseError, match="not finite"):
        predict_case(model, [tmp_path / "t1.nrrd"], CLASSES, case_id="t1")


def test_an_output_folder_that_cannot_be_made_is_said_before_any_work(tmp_path, scan):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        predict_files(FakeModel("one"), named_images([scan]), CLASSES, tmp_path / "file")


def test_a_prediction_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(named_images([Path()])) == [tmp_path.name]
    for nameless in (".nii.gz", "...nii.gz", "/"):
        with pytest.raises(CaseError, match="no name"):
            named_images([Path(nameless)])


def test_half_a_model_is_not_left_where_it_was_to_be_exported(finished, tmp_path):
    shutil.copytree(finished.work / "rounds" / "2", tmp_path / "rounds" / "2")
    shutil.copytree(finished.work / "rounds" / "1", tmp_path / "rounds" / "1")
    target = find_round(tmp_path)
    (target.fold("2d", 1) / "checkpoint_final.pth").rename(tmp_path / "checkpoint")
    with pytest.raises(SelfTrainingError, match="missing"):
        export_model(target, tmp_path / "out", finished.cohort)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    (tmp_path / "checkpoint").rename(target.fold("2d", 1) / "checkpoint_final.pth")
    assert (export_model(target, tmp_path / "out", finished.cohort) / "plans.json").is_file()


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
    for nonsense in ("last", "²"):
        with pytest.raises(SelfTrainingError, match="no round"):
            find_round(finished.work, nonsense)


@pytest.mark.parametrize(("file", "name"), [("a/new_01.nii.gz", "new_01"), ("x.y.nrrd", "x.y"), ("dicom", "dicom")])
def test_predictions_are_named_like_their_image(file, name):
    assert image_name(Path(file)) == name

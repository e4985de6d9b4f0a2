"""Two rounds with the real nnU-Net, from pseudo-labels to new labels and a model."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_geometry, read_label_file
from SSLSegLib.pseudolabels.review import CORRECTED_LABEL, save_review
from SSLSegLib.selftraining.dataset import Decisions
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import DATASET, WorkFolder
from SSLSegLib.selftraining.rounds import revert, self_train
from SSLSegLib.selftraining.run import Run

from .conftest import CLASSES, TINY_SCHEDULE, tiny_options


def _read(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_two_rounds_run_to_the_limit(finished):
    assert [report.name for report in finished.outcome.rounds] == ["round 1", "round 2"]
    assert finished.outcome.stopped == "limit"


def test_every_unlabelled_case_gets_a_new_label_in_the_exact_grid_of_its_image(finished):
    for number in (1, 2):
        folder = WorkFolder(finished.work).round(number).predictions
        assert sorted(path.name for path in folder.iterdir()) == ["c2.nii.gz", "c3.nii.gz", "c4.nii.gz"]
        for case in finished.cohort.unlabelled:
            label = read_label_file(folder / f"{case.id}.nii.gz", CLASSES)  # refuses values that are no class
            assert label.geometry.matches(read_geometry(finished.cohort, case), tolerance=1e-4)


def test_the_next_rounds_labels_are_the_union_of_the_folds_predictions(finished):
    work = WorkFolder(finished.work)
    for fold, cases in finished.outcome.rounds[0].folds.items():
        for case in cases:
            predicted = work.round(1).fold("2d", fold) / "validation" / f"{case}.nii.gz"
            assert (_read(predicted) == _read(work.round(2).labels / f"{case}.nii.gz")).all()
    for case in finished.cohort.labelled:
        of_person = read_label_file(finished.cohort.label_path(case), CLASSES).array
        assert (_read(work.round(2).labels / f"{case.id}.nii.gz") == np.searchsorted([0, 2, 5], of_person)).all()


def test_nnunet_is_given_unlabelled_validation_folds_only(finished):
    work = WorkFolder(finished.work)
    for number in (1, 2):
        found = json.loads((work.round(number).preprocessed / DATASET / "splits_final.json").read_text())
        assert len(found) == 2
        assert all({"c0", "c1"} <= set(split["train"]) for split in found)
        assert sorted(case for split in found for case in split["val"]) == ["c2", "c3", "c4"]
        assert found[0]["val"] == sorted(found[0]["val"])
    assert finished.outcome.rounds[0].folds == finished.outcome.rounds[1].folds


def test_agreement_is_the_foreground_dice_of_nnunets_own_evaluation(finished):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    work = WorkFolder(finished.work).round(1)
    of_cases = []
    for case in ("c2", "c3", "c4"):
        fold = next(fold for fold, cases in finished.outcome.rounds[0].folds.items() if case in cases)
        scores = compute_metrics(
            str(work.labels / f"{case}.nii.gz"),
            str(work.fold("2d", fold) / "validation" / f"{case}.nii.gz"),
            SimpleITKIO(),
            [1, 2],
        )
        of_cases.append(np.nanmean([scores["metrics"][label]["Dice"] for label in (1, 2)]))
    assert finished.outcome.rounds[0].agreement == pytest.approx(np.mean(of_cases))


def test_each_fold_reports_every_epoch(finished):
    epochs = [fields for event, fields in finished.events if event == "metric" and "epoch" in fields]
    assert len(epochs) == 2 * 2 * 2  # rounds, folds, epochs
    for fields in epochs:
        assert {"round", "fold", "epoch", "epochs", "train_loss", "val_loss", "pseudo_dice", "learning_rate"} <= set(
            fields
        )
        assert np.isfinite([fields["train_loss"], fields["val_loss"], fields["learning_rate"]]).all()
        assert len(fields["pseudo_dice"]) == 2


def test_images_are_neither_copied_nor_preprocessed_again(finished):
    work = WorkFolder(finished.work)
    assert not (work.raw / "images").exists()
    named = json.loads((work.raw / DATASET / "dataset.json").read_text())["dataset"]["c2"]["images"]
    assert named == [str(finished.cohort.image_paths(finished.cohort.case("c2"))[0].resolve())]
    base = work.preprocessed / DATASET / "nnUNetPlans_2d" / "c2.b2nd"
    of_rounds = [work.round(n).preprocessed / DATASET / "nnUNetPlans_2d" / "c2.b2nd" for n in (1, 2)]
    assert all(path.samefile(base) for path in of_rounds)


def test_the_plan_is_made_once(finished):
    work = WorkFolder(finished.work)
    plans = [path.read_bytes() for path in sorted(finished.work.rglob("nnUNetPlans.json"))]
    assert len(plans) == 3
    assert len(set(plans)) == 1
    assert work.finished_rounds() == [1, 2]


def test_running_a_finished_run_again_changes_nothing_and_starts_no_child(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.work.rglob("*") if path.is_file()}
    again = self_train(finished.cohort, finished.results, finished.work, finished.options, interpreter="/no/python")
    assert again == finished.outcome
    assert before == {path: path.stat().st_mtime_ns for path in finished.work.rglob("*") if path.is_file()}


def test_a_folder_of_another_run_is_refused(finished):
    with pytest.raises(SelfTrainingError, match="other options"):
        self_train(finished.cohort, finished.results, finished.work, tiny_options(seed=1))


def test_an_undone_round_is_kept_aside(finished, tmp_path):
    shutil.copytree(finished.work / "rounds", tmp_path / "rounds")
    assert revert(tmp_path, 1) == [2]
    assert WorkFolder(tmp_path).finished_rounds() == [1]
    assert len(list((tmp_path / "reverted").glob("*-2/round.json"))) == 1
    with pytest.raises(SelfTrainingError, match="no finished round 2"):
        revert(tmp_path, 2)


@pytest.fixture(scope="module")
def reviewed(finished, tmp_path_factory):
    """One round after reviews: c2 empty, c3 rejected, c4 corrected by its shifted label."""
    folder = tmp_path_factory.mktemp("reviewed")
    work = finished.copy_planned(folder / "work")
    results = folder / "results"
    shutil.copytree(finished.results, results)
    save_review(results / "c3", "rejected")
    shutil.copyfile(results / "c3" / "labels.nii.gz", results / "c4" / CORRECTED_LABEL)
    corrected = SimpleITK.ReadImage(str(results / "c3" / "labels.nii.gz"))
    Geometry.from_sitk(SimpleITK.ReadImage(str(results / "c4" / "labels.nii.gz"))).place(corrected)
    SimpleITK.WriteImage(corrected, str(results / "c4" / CORRECTED_LABEL))
    save_review(results / "c4", "corrected")
    empty = work / "base" / "labels" / "c2.nii.gz"
    image = SimpleITK.ReadImage(str(empty))
    SimpleITK.WriteImage(image * 0, str(empty))
    outcome = self_train(finished.cohort, results, work, tiny_options(rounds=1))
    return work, outcome.rounds[0]


def test_empty_and_rejected_pseudo_labels_are_not_trained_on_but_predicted(reviewed):
    work, report = reviewed
    assert report.left_out == {"c2": "empty", "c3": "rejected"}
    assert report.trained == ()
    assert sorted(case for cases in report.folds.values() for case in cases) == ["c2", "c3"]
    assert (work / "rounds" / "1" / "predictions" / "c2.nii.gz").is_file()


def test_corrected_cases_join_the_labelled_ones_with_the_persons_label(reviewed):
    work, report = reviewed
    assert report.labelled == ("c0", "c1", "c4")
    trained_on = _read(work / "rounds" / "1" / "labels" / "c4.nii.gz")
    assert (trained_on == _read(work / "rounds" / "1" / "labels" / "c3.nii.gz")).all()
    assert not (work / "rounds" / "1" / "predictions" / "c4.nii.gz").exists()


def test_where_every_case_was_corrected_there_is_nothing_to_train_and_no_round_without_a_model(finished, tmp_path):
    work = WorkFolder(finished.copy_planned(tmp_path / "work"))
    given = {case.id: finished.results / case.id / "labels.nii.gz" for case in finished.cohort.unlabelled}
    with pytest.raises(SelfTrainingError, match="nothing left to refine"):
        self_train(finished.cohort, finished.results, work.path, tiny_options(), decisions=Decisions(corrected=given))
    assert not work.round(1).path.exists()


def test_the_baseline_sees_no_pseudo_label(finished, tmp_path):
    work = WorkFolder(finished.copy_planned(tmp_path / "work"))
    run = Run.prepare(finished.cohort, finished.results, work.path, finished.options)
    roles = run._lay_out(work.baseline, lambda: run._training_set(run.given_labels(), labelled_only=True))
    found = json.loads((work.baseline.preprocessed / DATASET / "splits_final.json").read_text())
    assert all(split["train"] == ["c0", "c1"] for split in found)
    assert roles.trained == ()
    assert set(roles.left_out) == {"c2", "c3", "c4"}


def test_the_baseline_trains_as_long_as_the_final_model():
    warm = tiny_options(rounds=3, first_labels="given")
    chosen = tiny_options(rounds=3, first_labels="best")
    cold = tiny_options(schedule=TINY_SCHEDULE.model_copy(update={"warm_start": False}))
    assert warm.baseline_schedule(2).epochs == 3 * warm.schedule.epochs
    assert chosen.baseline_schedule(2).epochs == 4 * chosen.schedule.epochs, "the cross-validation was warm start"
    assert chosen.baseline_schedule(1).epochs == 3 * chosen.schedule.epochs, "one case leaves nothing to choose by"
    assert cold.baseline_schedule(2) == cold.schedule


def test_auto_is_the_device_of_this_machine(finished, tmp_path):
    from SSLSegLib.weights.device import resolve_device

    work = finished.copy_planned(tmp_path / "work")
    options = finished.options.model_copy(update={"devices": ("auto", "cpu")})
    here = str(resolve_device("auto").device)
    run = Run.prepare(finished.cohort, finished.results, work, options)
    assert run.options.devices == (here, "cpu")
    assert run.device == here

"""Predictions find their references, by cohort or by name, and every mismatch is said."""

import shutil

import numpy as np
import pytest

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.evaluation.folders import evaluate_folder, find_predictions
from SSLSegLib.files import write_json


def dice_of(evaluation) -> dict[str, float]:
    return {case.case_id: round(case.mean("dice"), 4) for case in evaluation.cases}


def test_a_job_is_scored_by_its_cohort(job):
    heard = []
    evaluation = evaluate_folder(
        job.folder, job.folder / "cohort.json", progress=lambda event, **fields: heard.append((event, fields))
    )
    scores = dice_of(evaluation)
    assert scores == {"exact": 1.0, "missed": 0.0, "near": round(6 / 7, 4), "off": round(4 / 7, 4)}
    assert [each.name for each in evaluation.classes] == ["liver", "spleen"]
    assert evaluation.without_reference == ("unknown",)
    assert heard[0] == ("stage", {"stage": "evaluate", "total": 4})
    assert [fields["done"] for event, fields in heard if event == "progress"] == [1, 2, 3, 4]


def test_a_cohort_file_is_known_whatever_its_name(job):
    other = shutil.copy(job.folder / "cohort.json", job.folder / "hearts")
    assert dice_of(evaluate_folder(job.folder, other)) == dice_of(evaluate_folder(job.folder, job.folder))


def test_folders_are_matched_by_name_whatever_the_ending(job, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    shutil.copy(job.results / "near" / "labels.seg.nrrd", predictions / "near.seg.nrrd")
    shutil.copy(job.results / "off" / "labels.nii.gz", predictions / "off.nii.gz")
    shutil.copy(job.results / "off" / "labels.nii.gz", predictions / "stranger.nii.gz")
    evaluation = evaluate_folder(predictions, job.folder / "references", classes=job.cohort.classes)
    assert dice_of(evaluation) == {"near": round(6 / 7, 4), "off": round(4 / 7, 4)}
    assert evaluation.without_reference == ("stranger",)
    assert evaluation.without_prediction == ("exact", "missed")


def test_what_predict_wrote_is_scored_and_not_called_damaged(job, tmp_path):
    for case in ("near", "off"):
        (tmp_path / case).mkdir()
        shutil.copy(job.results / case / "labels.nii.gz", tmp_path / case)
        record = {"case_id": case, "method": "FSL-nnUNet", "model": "round 1", "checkpoints": {"0": "0" * 64}}
        write_json(tmp_path / case / "result.json", record)
    evaluation = evaluate_folder(tmp_path, job.folder / "cohort.json")
    assert dice_of(evaluation) == {"near": round(6 / 7, 4), "off": round(4 / 7, 4)}


def test_without_classes_every_value_of_the_references_is_scored(job, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    shutil.copy(job.results / "near" / "labels.nii.gz", predictions / "near.nii.gz")
    evaluation = evaluate_folder(predictions, job.folder / "references")
    assert [(each.value, each.name) for each in evaluation.classes] == [(1, "label 1"), (3, "label 3")]


def test_labels_of_labelled_cases_are_references_for_leave_one_out(job):
    cases = [
        each.model_copy(update={"role": "labelled", "label": each.reference, "reference": None})
        if each.reference
        else each
        for each in job.cohort.cases
    ]
    job.cohort.model_copy(update={"cases": tuple(cases)}).at(job.folder).save(job.folder / "loo.json")
    assert len(evaluate_folder(job.folder, job.folder / "loo.json").cases) == 4


def test_a_job_is_not_asked_for_predictions_of_its_labelled_cases(job):
    cases = [
        each.model_copy(update={"role": "labelled", "label": each.reference, "reference": None})
        if each.id == "exact"
        else each
        for each in job.cohort.cases
    ]
    job.cohort.model_copy(update={"cases": tuple(cases)}).at(job.folder).save(job.folder / "learnt.json")
    shutil.rmtree(job.results / "exact")
    shutil.rmtree(job.results / "near")
    assert evaluate_folder(job.folder, job.folder / "learnt.json").without_prediction == ("near",)


def test_a_prediction_in_another_geometry_is_named_and_refused(job, tmp_path):
    predictions = tmp_path / "predictions"
    moved = np.array(job.reference.geometry.ijk_to_ras)
    moved[0, 3] += 20
    elsewhere = Geometry(job.reference.geometry.shape, moved)
    label = LabelMap(job.reference.array, elsewhere)
    write_label(predictions / "near.nii.gz", label, job.cohort.classes, reference=elsewhere)
    with pytest.raises(CaseError, match=r"near.*geometry"):
        evaluate_folder(predictions, job.folder / "references")


def test_nothing_in_common_missing_folders_and_doubles_are_errors(job, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CohortError, match="no label files"):
        find_predictions(empty)
    with pytest.raises(CohortError, match="no folder"):
        find_predictions(tmp_path / "nowhere")
    with pytest.raises(CohortError, match="No prediction"):
        evaluate_folder(job.results, empty)
    for name in ("near.nii.gz", "near.seg.nrrd"):
        shutil.copy(job.results / "near" / f"labels{name[4:]}", empty / name)
    with pytest.raises(CaseError, match="both labels"):
        find_predictions(empty)


def test_a_result_that_was_changed_by_hand_is_not_scored(job):
    label = job.results / "near" / "labels.nii.gz"
    whole = label.read_bytes()
    label.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CaseError, match=r"near.*not those"):
        find_predictions(job.folder)


def test_values_beyond_the_given_classes_are_an_error_not_background(job):
    with pytest.raises(CaseError, match="no class"):
        evaluate_folder(job.folder, job.folder / "references", classes=[SegmentClass(value=1, name="liver")])

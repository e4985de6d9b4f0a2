"""VESSA from end to end: the pipeline's labels are the job's, and what is finished stays."""

import numpy as np
import pytest
import torch
from tiny import make_cohort, tiny_options
from tiny_vessa import SAM2, tiny_sam2, tiny_vessa

from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.vessa_guided import guided_manifest
from SSLSegLib.pipelines import vessa_stage_1, vessa_unimatch
from SSLSegLib.pseudolabels.storage import load_pseudo_label
from SSLSegLib.vessa.features import sam2_features
from SSLSegLib.vessa.guide import GuidedOptions
from SSLSegLib.vessa.options import TrainingOptions, VessaOptions
from SSLSegLib.vessa.saving import without_language
from SSLSegLib.vessa.slices import CohortSlices
from SSLSegLib.vessa.templates import TemplateBank
from SSLSegLib.weights.saving import save_sam2

SEED = 5
TRAINING = GuidedOptions.model_validate(
    {**tiny_options(steps=3, batch=1, seed=SEED).model_dump(exclude={"guide", "prompting"}), "feedback": True}
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_sam2(path, tiny_sam2(), SAM2)
    return path


def run(cohort, weights, work, **more):
    """Labels by the pipeline, and what had to be loaded for them."""
    labels, loaded = {}, []

    def expert():
        loaded.append(weights)
        return without_language(weights, "cpu")

    def keep(label):
        labels[label.case_id] = label

    specialist = vessa_unimatch(cohort, expert, work, TRAINING, sink=keep, device="cpu", **more)
    return labels, loaded, specialist


def test_the_labels_are_those_of_the_job(cohort, weights, tmp_path):
    features = sam2_features(without_language(weights, "cpu").model.segmenter.sam2)
    TemplateBank.of(CohortSlices(cohort), features).save(tmp_path / "bank")
    manifest = guided_manifest(
        cohort,
        tmp_path / "bank",
        VessaOptions(),
        TRAINING.model_dump(mode="json"),
        seed=SEED,
        sam2=str(weights),
        device="cpu",
        threads=1,
        report=False,
        scene=False,
    )
    job = Job.create(tmp_path / "job", manifest)
    assert run_job(job).status == "finished"
    labels, _, specialist = run(cohort, weights, tmp_path / "work")
    assert list(labels) == [case.id for case in cohort.unlabelled]
    for case_id, label in labels.items():
        of_job = load_pseudo_label(job.result_folder(case_id))
        np.testing.assert_array_equal(label.mask, of_job.mask)
        np.testing.assert_allclose(label.probability, of_job.probability, atol=1e-3)  # stored with less precision
        assert label.provenance["weights"]["sha256"] == of_job.provenance["weights"]["sha256"]
        assert label.probability.std() > 1e-3
    assert specialist.record.options["guide"] == "vessa"


def test_what_is_finished_is_not_made_again(cohort, weights, tmp_path):
    first, loaded, _ = run(cohort, weights, tmp_path)
    assert loaded == [weights]
    done, missing = (case.id for case in cohort.unlabelled)
    again, loaded, _ = run(cohort, weights, tmp_path, skip=[done])
    assert loaded == []
    assert list(again) == [missing]
    np.testing.assert_array_equal(again[missing].probability, first[missing].probability)


def test_stage_1_gives_a_vessa_that_guides(tmp_path):
    cohort = make_cohort(tmp_path / "cohort", labelled=3, unlabelled=1)
    options = TrainingOptions(
        steps=2, batch=1, accumulate=1, validate_every=1, validation_pairs=2, bank_part=0.3, precision="float32"
    )

    def trained():
        return vessa_stage_1(CohortSlices(cohort), tiny_vessa(), tmp_path / "stage1", options, device="cpu")

    labels = []
    vessa_unimatch(cohort, trained, tmp_path / "work", TRAINING, sink=labels.append, device="cpu")
    assert [label.case_id for label in labels] == [case.id for case in cohort.unlabelled]
    assert trained().model.language is not None  # read again: nothing is left to train
    assert len((tmp_path / "stage1" / "curve.jsonl").read_text().splitlines()) == 2

"""Pseudo-labels by VESSA on the tiny cohort: real files, a real tiny model."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import make_cohort
from tiny_vessa import tiny_vessa

from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_geometry, read_volume
from SSLSegLib.errors import CohortError
from SSLSegLib.pseudolabels.review import save_review
from SSLSegLib.pseudolabels.storage import save_pseudo_label
from SSLSegLib.vessa.features import Sam2Features, sam2_features
from SSLSegLib.vessa.inputs import LiveInputs, Place
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.pictures import picture_of
from SSLSegLib.vessa.prompts import FIXED_ANSWER, class_phrase, instruction
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.segment import segment_cohort
from SSLSegLib.vessa.slices import CohortSlices, accepted_cases
from SSLSegLib.vessa.templates import TemplateBank


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"), unlabelled=2)


@pytest.fixture(scope="module")
def vessa():
    return LoadedVessa(tiny_vessa(), "tiny", "0" * 64, torch.device("cpu"), "test")


@pytest.fixture(scope="module")
def bank(cohort, vessa):
    features = sam2_features(vessa.model.segmenter.sam2)
    return TemplateBank.of(CohortSlices(cohort), features)


def labels(cohort, vessa, bank, *, seed=42, **changes):
    found = []
    segment_cohort(
        cohort,
        vessa,
        bank,
        VessaOptions(**{"largest_component": False, **changes}),
        seed=seed,
        sink=found.append,
    )
    return found


def plain_slice(cohort, vessa, bank, case, index, target):
    """Equation 1's expectation for one slice and class, one template at a time by the model's own forward pass."""
    volume = read_volume(cohort, case)
    picture = picture_of(to_display_range(volume, cohort.modality, cohort.window), index)
    features = Sam2Features(vessa.model.segmenter.sam2, "any")
    vector = features([picture])[0]
    likeness = []
    for number, template in enumerate(bank.templates):
        if target in template.targets:
            likeness.append((float(np.dot(features([bank.pictures[number]])[0], vector)), number))
    best = sorted(likeness, reverse=True)[:3]
    total = sum(math.exp(s / 0.1) for s, _ in best)
    mean = np.zeros(volume.geometry.in_plane)
    square = np.zeros_like(mean)
    for similarity, number in best:
        pairs = vessa.model.pairs(
            [picture], [bank.pictures[number]], [bank.masks[number][target]], [instruction(1)], [FIXED_ANSWER]
        )
        with torch.no_grad():
            logits = F.interpolate(vessa.model(pairs).logits, volume.geometry.in_plane, mode="bilinear")[0, 0]
        weight = math.exp(similarity / 0.1) / total
        mean += weight * logits.sigmoid().numpy()
        square += weight * logits.sigmoid().numpy() ** 2
    return mean, square - mean**2


def test_a_pseudo_label_is_the_expectation_over_three_templates(cohort, vessa, bank):
    made = labels(cohort, vessa, bank)
    assert [each.case_id for each in made] == ["c2", "c3"]
    for case, label in zip(cohort.unlabelled, made, strict=True):
        spread = np.zeros(label.probability.shape)
        for number, segment in enumerate(cohort.classes):
            for index in (0, 2):
                mean, variance = plain_slice(cohort, vessa, bank, case, index, segment.name)
                np.testing.assert_allclose(label.probability[number, index], mean, atol=2e-5)
                spread[number, index] = np.sqrt(np.clip(variance, 0, None))
        assert spread.max() > 1e-3
        np.testing.assert_allclose(label.spread[[0, 2]], spread.max(0)[[0, 2]], atol=2e-3)


def test_the_class_is_named_on_request_alone_in_a_cohort_and_for_the_guide(cohort, vessa, bank, monkeypatch):
    told = []
    prompts = vessa.model.prompts

    def heard(targets, templates, masks, phrases=None):
        told.append(phrases)
        return prompts(targets, templates, masks, phrases)

    monkeypatch.setattr(vessa.model, "prompts", heard)
    names = [class_phrase(each) for each in cohort.classes]
    features = sam2_features(vessa.model.segmenter.sam2)
    for named, expected in ((False, {None}), (True, set(names))):
        told.clear()
        labels(cohort, vessa, bank, named=named)
        assert {name for phrases in told for name in (phrases or [None])} == expected
        told.clear()
        live = LiveInputs(cohort, vessa, bank, features, VessaOptions(named=named))
        live.fetch([Place(0, 2, target, 0) for target in range(len(names))])
        assert told == [names if named else None]


def test_labels_lie_in_the_geometry_of_their_images_and_say_where_they_come_from(cohort, vessa, bank):
    for case, label in zip(cohort.unlabelled, labels(cohort, vessa, bank), strict=True):
        assert label.geometry.matches(read_geometry(cohort, case))
        assert label.provenance["method"] == "VESSA"
        assert label.provenance["labelled"] == ["c0", "c1"]
        assert label.provenance["options"]["bank"] == bank.fingerprint()


def test_the_batch_size_changes_nothing(cohort, vessa, bank):
    for one, other in zip(labels(cohort, vessa, bank, batch=1), labels(cohort, vessa, bank, batch=5), strict=True):
        np.testing.assert_allclose(one.probability, other.probability, atol=2e-5)


def test_one_template_can_be_the_best_or_be_sampled_by_the_seed(cohort, vessa, bank):
    best = labels(cohort, vessa, bank, templates="best")[0]
    assert best.spread is None
    np.testing.assert_allclose(
        best.probability, labels(cohort, vessa, bank, templates="mean", top=1)[0].probability, atol=2e-5
    )
    drawn = [labels(cohort, vessa, bank, templates="sample", seed=seed)[0].probability for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3


def test_finished_cases_are_skipped(cohort, vessa, bank):
    found = []
    segment_cohort(cohort, vessa, bank, VessaOptions(), seed=1, sink=found.append, skip=["c2"])
    assert [each.case_id for each in found] == ["c3"]


def test_a_class_that_no_template_shows_is_told_and_stays_empty(cohort, vessa, bank):
    only_ball = bank.part([index for index, each in enumerate(bank.templates) if each.targets == ("ball",)])
    told, found = [], []
    segment_cohort(
        cohort,
        vessa,
        only_ball,
        VessaOptions(),
        seed=1,
        sink=found.append,
        progress=lambda event, **fields: told.append((event, fields)),
    )
    assert ("warning", {"message": "No template shows 'rod'."}) in told
    assert found[0].probability[1].max() == 0
    assert found[0].probability[0].max() > 0


def test_a_bank_of_no_class_of_the_cohort_is_refused(cohort, vessa, bank):
    renamed = bank.part([0])
    renamed.templates[0] = renamed.templates[0].model_copy(update={"targets": ("heart",)})
    with pytest.raises(CohortError, match="none of the classes"):
        labels(cohort, vessa, renamed)


def test_a_bank_that_other_features_indexed_is_refused(cohort, vessa, bank):
    other = bank.part([0, 1])
    other.features_name = "dinov2"
    with pytest.raises(CohortError, match="indexed by 'dinov2'"):
        labels(cohort, vessa, other)


def test_accepted_and_corrected_cases_join_the_bank_and_stale_decisions_do_not(cohort, vessa, bank, tmp_path):
    for label in labels(cohort, vessa, bank):
        save_pseudo_label(tmp_path / "results" / label.case_id, label, cohort.classes)
    assert accepted_cases(cohort, tmp_path) == []
    save_review(tmp_path / "results" / "c2", "accepted")
    save_review(tmp_path / "results" / "c3", "rejected")
    (case,) = accepted_cases(cohort, tmp_path)
    assert (case.id, case.role, case.label) == ("c2", "labelled", str(tmp_path / "results" / "c2" / "labels.nii.gz"))
    labels_file = tmp_path / "results" / "c2" / "labels.nii.gz"
    labels_file.write_bytes(labels_file.read_bytes() + b"\0")
    assert accepted_cases(cohort, tmp_path) == []

"""What round 1 is trained on: real nnU-Net for the cross-validation; a stand-in says how good its networks are."""

import json

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_array_equal

from SSLSegLib.cases.reading import read_geometry, read_label, read_label_file
from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance
from SSLSegLib.pseudolabels.storage import load_pseudo_label, save_pseudo_label
from SSLSegLib.selftraining import first_labels as module
from SSLSegLib.selftraining.choice import Choice, read_choice
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.first_labels import first_labels, mixed_labels
from SSLSegLib.selftraining.folders import DATASET, WorkFolder
from SSLSegLib.selftraining.options import SelfTrainingOptions
from SSLSegLib.selftraining.report import read_report
from SSLSegLib.selftraining.rounds import self_train
from SSLSegLib.selftraining.run import Run

from .conftest import CLASSES, copy_planned, make_cohort, tiny_options

BEST = tiny_options(rounds=1, folds=1, first_labels="best")
VALUES = [each.value for each in CLASSES]


def probability_of(labels, inside=0.8, outside=0.03):
    return np.stack([np.where(labels == value, inside, outside) for value in VALUES]).astype(np.float32)


def save(folder, case, labels, grid):
    label = build_pseudo_label(
        case,
        probability_of(labels),
        grid,
        CLASSES,
        provenance=make_provenance("TFFS-MedSAM2", seed=1, labelled=[], options={}, weights="none", weights_sha256="0"),
    )
    save_pseudo_label(folder / case, label, CLASSES)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Pseudo-labels of balls are right, those of boxes lie elsewhere; labelled cases left out fare the same."""
    cohort = make_cohort(tmp_path_factory.mktemp("cohort"), labelled=3)
    for case in (*cohort.labelled, *cohort.unlabelled):
        truth = read_label(cohort, case, "label" if case.role == "labelled" else "reference").array
        found = np.where(truth == 2, truth, np.roll(np.where(truth == 5, truth, 0), 6, axis=2)).astype(np.uint8)
        where = "left-out" if case.role == "labelled" else "results"
        save(cohort.folder / where, case.id, found, read_geometry(cohort, case))
    return cohort


@pytest.fixture
def held_out(cohort):
    class HeldOut:
        asked = 0

        def __call__(self):
            self.asked += 1
            return {case.id: cohort.folder / "left-out" / case.id for case in cohort.labelled}

    return HeldOut()


class FakeNetworks:
    """Stands for the networks of the cross-validation: sure of all boxes, blind to balls."""

    def __init__(self, run):
        self.run, self.folds = run, read_report(run.work.crossvalidation.report).folds

    def probability(self, case, fold=None):
        if case.role == "labelled":
            assert case.id in self.folds[fold], "asked a network that has seen the label"
        truth = read_label(self.run.cohort, case, "label" if case.role == "labelled" else "reference").array
        return probability_of(np.where(truth == 5, truth, 0), inside=0.95, outside=0.02)


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """One real run, its choice made with stand-in networks."""
    work, said = tmp_path_factory.mktemp("work"), []

    def once():
        return {case.id: cohort.folder / "left-out" / case.id for case in cohort.labelled}

    with pytest.MonkeyPatch.context() as during:
        during.setattr(module, "_Networks", FakeNetworks)
        outcome = self_train(
            cohort,
            cohort.folder / "results",
            work,
            BEST,
            held_out=once,
            progress=lambda event, **fields: said.append((event, fields)),
        )
    return WorkFolder(work), outcome, said


def test_networks_of_the_cross_validation_see_every_labelled_case_but_their_own(trained, cohort):
    work, _, _ = trained
    splits = json.loads((work.crossvalidation.preprocessed / DATASET / "splits_final.json").read_text())
    assert sorted(case for split in splits for case in split["val"]) == ["c0", "c1", "c2"]
    assert all(sorted(split["train"] + split["val"]) == ["c0", "c1", "c2"] for split in splits)
    predicted = sorted(path.name for path in work.crossvalidation.predictions.iterdir())
    assert predicted == ["c0.nii.gz", "c1.nii.gz", "c2.nii.gz"]


def test_each_class_begins_with_what_segments_left_out_labelled_cases_best(trained, cohort):
    work, _, _ = trained
    choice = read_choice(work.choice)
    assert choice.parts == {"ball": 0.0, "box": 1.0}
    assert choice.means()["ball"] == {"given": 1.0, "mean": pytest.approx(0.0), "networks": 0.0}
    assert choice.means()["box"]["networks"] == 1.0
    assert choice.means()["box"]["given"] < 0.5
    assert list(choice.dice["box"]["given"]) == ["c0", "c1", "c2"]
    assert choice.strangers() == {}
    for case in cohort.unlabelled:
        label = read_label_file(work.first.predictions / f"{case.id}.nii.gz", CLASSES)
        assert_array_equal(label.array, read_label(cohort, case, "reference").array)
        assert label.geometry.matches(read_geometry(cohort, case), tolerance=1e-4)


def test_round_one_is_trained_on_the_chosen_labels(trained, cohort):
    work, _, _ = trained
    for case in cohort.unlabelled:
        of_round = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(work.round(1).labels / f"{case.id}.nii.gz")))
        truth = read_label(cohort, case, "reference").array
        assert_array_equal(of_round, np.searchsorted([0, 2, 5], truth))


def test_round_one_starts_from_a_network_of_the_cross_validation(trained, cohort):
    work, _, _ = trained
    spec = json.loads((work.round(1).path / "fold_0.json").read_text())
    assert spec["warm_start"] == str(work.crossvalidation.fold("2d", 0) / "checkpoint_final.pth")
    assert json.loads((work.crossvalidation.path / "fold_0.json").read_text())["warm_start"] is None


def test_labelled_cases_are_no_results(trained):
    _, _, said = trained
    assert {fields["case"] for event, fields in said if event == "result"} == {"c3", "c4", "c5"}


def test_the_choice_is_made_once(trained, cohort, held_out, monkeypatch):
    work, _, _ = trained
    monkeypatch.setattr(module, "_Networks", None)  # not needed either: all mixed labels are there
    run = Run.prepare(cohort, cohort.folder / "results", work.path, BEST, held_out=held_out)
    assert first_labels(run)["c3"] == work.first.labels / "c3.nii.gz"
    assert held_out.asked == 0


def test_real_networks_are_asked_for_the_fold_that_left_the_case_out(trained, cohort):
    """The class that stands behind the stand-in: one fold's network alone, and the average of all."""
    work, _, _ = trained
    run = Run.prepare(cohort, cohort.folder / "results", work.path, BEST)
    networks = module._Networks(run)
    case = cohort.labelled[0]
    report = networks.model.report
    own = next(place for place, fold in enumerate(sorted(report.folds)) if case.id in report.folds[fold])
    found = networks.probability(case, own)
    predicted = read_label_file(work.crossvalidation.predictions / f"{case.id}.nii.gz", CLASSES).array
    background = 1 - found.sum(axis=0)
    likeliest = np.where(found.max(axis=0) > background, np.array(VALUES)[found.argmax(axis=0)], 0)
    assert (likeliest != predicted).mean() < 1e-3, "not what the fold itself predicted when it had trained"
    average = networks.probability(case)
    assert found.shape == average.shape == (2, *predicted.shape)
    assert not np.allclose(found, average)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [((0, 0), "given"), ((1, 1), "networks"), ((0.5, 0.5), "mean")],
)
def test_labels_are_those_of_the_weighted_mean(cohort, parts, expected):
    given = load_pseudo_label(cohort.folder / "results" / "c3")
    networks = np.random.default_rng(1).uniform(0, 1, given.probability.shape).astype(np.float32)
    labels = mixed_labels(given, networks, parts, VALUES)
    if expected == "given":
        assert_array_equal(labels, given.mask)
        return
    mean = networks if expected == "networks" else (given.probability + networks) / 2
    assert_array_equal(labels, np.where(mean.max(axis=0) > 0.5, np.array(VALUES)[mean.argmax(axis=0)], 0))


@pytest.mark.parametrize(
    ("given", "mean", "networks", "best"),
    [
        ([0.7, 0.8, 0.8, 0.6], [0.72, 0.86, 0.85, 0.61], [0.6, 0.6, 0.6, 0.6], "mean"),
        ([0.7, 0.8, 0.8], [0.7, 0.8, 0.8], [0.9, 0.9, 0.85], "networks"),
        ([0.7, 0.8, 0.8, 0.6], [0.9, 0.7, 0.85, 0.6], [0.6, 0.6, 0.6, 0.6], "given"),  # one case says otherwise
        ([0.7, 0.8], [0.9, 0.95], [0.6, 0.6], "given"),  # two cases say nothing
        ([0.7, 0.8, 0.8], [0.7, 0.8, 0.8], [0.7, 0.8, 0.8], "given"),
        ([0.5, 0.5, 0.5], [0.6, 0.6, 0.6], [0.9, 0.9, 0.9], "networks"),  # all by the same: no doubt at all
        ([], [], [], "given"),
    ],
)
def test_other_labels_are_chosen_only_beyond_doubt(given, mean, networks, best):
    candidates = {"given": given, "mean": mean, "networks": networks}
    assert module._best({name: dict(enumerate(scores)) for name, scores in candidates.items()}) == best


@pytest.mark.parametrize("why", ["asked for", "one labelled case", "a method without left-out labels"])
def test_pseudo_labels_are_taken_as_given(why, trained, cohort, held_out, tmp_path):
    work = WorkFolder(copy_planned(trained[0].path, tmp_path / "work"))
    run = Run.prepare(cohort, cohort.folder / "results", work.path, BEST, held_out=held_out)
    options = BEST.model_copy(update={"first_labels": "given" if why == "asked for" else "best"})
    object.__setattr__(run, "options", options)
    if why == "one labelled case":
        alone = [case for case in run.cohort.cases if case.id not in ("c1", "c2")]  # the trained run has three
        object.__setattr__(run, "cohort", run.cohort.model_copy(update={"cases": tuple(alone)}))
    if why.startswith("a method"):
        object.__setattr__(run, "held_out", None)
    assert first_labels(run) == run.given_labels()
    assert held_out.asked == 0
    assert not work.crossvalidation.path.exists()


def test_a_damaged_choice_is_said(tmp_path):
    (tmp_path / "choice.json").write_text("{")
    with pytest.raises(SelfTrainingError, match="damaged"):
        read_choice(tmp_path / "choice.json")
    assert read_choice(tmp_path / "none.json") is None


def choice_of(given, mean, networks):
    dice = {"given": given, "mean": mean, "networks": networks}
    return Choice(
        parts={"heart": 0.5},
        dice={"heart": {name: dict(zip("abcd", scores, strict=False)) for name, scores in dice.items()}},
    )


def test_the_choice_is_said_in_words():
    (sentence,) = choice_of([0.6, 0.8], [0.8, 0.9], [0.8, 0.8]).sentences()
    assert "mean of pseudo-labels and networks" in sentence
    assert "pseudo-labels 0.700, networks 0.800, mean 0.850" in sentence
    assert "2 labelled scans" in sentence


def test_a_doubtful_gain_is_called_one():
    choice = choice_of([0.6, 0.8], [0.8, 0.9], [0.8, 0.8]).model_copy(update={"parts": {"heart": 0.0}})
    assert choice.sentences()[0].endswith("mean 0.850; too little to go by.")
    better = choice_of([0.9, 0.9], [0.8, 0.9], [0.8, 0.8]).model_copy(update={"parts": {"heart": 0.0}})
    assert "too little" not in better.sentences()[0]


def test_a_labelled_case_unlike_the_others_is_named():
    choice = choice_of([0.7, 0.8, 0.8, 0.0], [0.7, 0.9, 0.9, 0.01], [0.7, 0.8, 0.9, 0.03])
    assert choice.strangers() == {"d": 0.03}
    assert "'d' cannot be segmented from the others (Dice 0.03)" in choice.sentences()[-1]
    assert choice_of([0.1, 0.8], [0.1, 0.8], [0.1, 0.8]).strangers() == {}, "of two, which is the strange one?"
    assert choice_of([0.1, 0.1, 0.2], [0.1, 0.1, 0.2], [0.1, 0.1, 0.2]).strangers() == {}, "all are bad"


def test_presets_choose_but_the_papers_does_not():
    chosen = {preset: SelfTrainingOptions.of(preset).first_labels for preset in ("quick", "standard", "paper")}
    assert chosen == {"quick": "best", "standard": "best", "paper": "given"}
    assert "first_labels" not in SelfTrainingOptions.of("paper").what(), "older runs could not be taken up"

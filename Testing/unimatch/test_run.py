import numpy as np
import pytest
import torch
from tiny import CLASSES, NETWORK, make_cohort, tiny_options, truth_of

from SSLSegLib.cases.reading import read_geometry, read_volume
from SSLSegLib.errors import CaseError, CohortError, WeightsError
from SSLSegLib.pseudolabels.label import build_pseudo_label
from SSLSegLib.pseudolabels.storage import load_pseudo_label, save_pseudo_label
from SSLSegLib.unimatch.model import ModelRecord, TrainedNetwork, load_model
from SSLSegLib.unimatch.options import PRESETS, UniMatchOptions
from SSLSegLib.unimatch.predict import class_probabilities
from SSLSegLib.unimatch.run import train_and_label


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def guide_job(cohort, tmp_path_factory):
    """Pseudo-labels as a finished job holds them: the references, less sure."""
    folder = tmp_path_factory.mktemp("job")
    for case in cohort.unlabelled:
        label = build_pseudo_label(
            case.id, 0.9 * truth_of(cohort, case), read_geometry(cohort, case), CLASSES, largest_component=False
        )
        save_pseudo_label(folder / "results" / case.id, label, CLASSES)
    return folder


@pytest.fixture(scope="module")
def finished(cohort, guide_job, tmp_path_factory):
    events = []
    where = train_and_label(
        cohort,
        tmp_path_factory.mktemp("run"),
        tiny_options(guide="tffs", steps=3),
        guide_results=guide_job,
        device="cpu",
        test_cases=True,
        progress=lambda event, **fields: events.append((event, fields)),
    )
    return where, events


def test_labels_of_all_cases_lie_in_the_exact_geometry_of_their_images(cohort, finished):
    where, events = finished
    for case in (*cohort.unlabelled, *cohort.test):
        label = load_pseudo_label(where.result(case.id))
        assert label.geometry.matches(read_geometry(cohort, case))
        assert label.probability.shape == (2, *label.geometry.shape)
        assert set(np.unique(label.mask)) <= {0, 2, 5}
        assert 0 <= label.uncertainty.min() <= label.uncertainty.max() <= np.log(2) + 1e-4
        assert label.provenance["method"] == "UniMatch v2 + TFFS"
        assert label.provenance["labelled"] == ["c0", "c1"]
    assert [fields["case"] for event, fields in events if event == "result"] == ["c2", "c3", "c4"]
    assert [fields["device"] for event, fields in events if event == "device"] == ["cpu"]


def test_a_finished_run_that_is_run_again_changes_nothing(cohort, guide_job, finished):
    where, _ = finished
    files = {path: path.read_bytes() for path in (where.path / "results").rglob("*") if path.is_file()}
    train_and_label(cohort, where.path, tiny_options(guide="tffs", steps=3), guide_results=guide_job, device="cpu")
    assert files == {path: path.read_bytes() for path in (where.path / "results").rglob("*") if path.is_file()}


def test_the_model_on_disk_is_the_teacher_and_says_what_it_is_for(finished):
    where, _ = finished
    model = load_model(where.model)
    state = torch.load(where.training / "state.pt", weights_only=True)
    assert all(torch.equal(tensor, state["teacher"][name]) for name, tensor in model.network.state_dict().items())
    assert model.record.classes == CLASSES
    assert (model.record.which, model.record.channels) == ("teacher", 1)
    student = load_model(where.model / "student").network.state_dict()
    assert all(torch.equal(tensor, state["student"][name]) for name, tensor in student.items())


def test_a_model_whose_weights_were_changed_is_refused(finished, tmp_path):
    import shutil

    copied = shutil.copytree(finished[0].model, tmp_path / "model")
    with open(copied / "teacher.safetensors", "ab") as opened:
        opened.write(b"x")
    with pytest.raises(WeightsError, match="not the file"):
        load_model(copied)
    with pytest.raises(WeightsError, match="no trained model"):
        load_model(tmp_path / "nowhere")


def model_record(*, pixel_mm: float) -> ModelRecord:
    return ModelRecord(
        network=NETWORK,
        classes=CLASSES,
        modality="MR",
        window=None,
        channels=1,
        pixel_mm=pixel_mm,
        which="teacher",
        sha256="",
        labelled=(),
        options={},
    )


class BrightIsBall(torch.nn.Module):
    """A fake network: class 1 where a pixel is brighter than the middle, so that places can be followed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = 60 * images[:, :1]
        return torch.cat([torch.zeros_like(bright), bright, torch.full_like(bright, -60.0)], 1)


def test_slices_go_back_to_the_places_they_came_from(cohort):
    """Anisotropic pixels and sides that are no whole patches included."""
    model = TrainedNetwork(BrightIsBall(), model_record(pixel_mm=0.5), torch.device("cpu"))
    for case in cohort.cases[:3]:
        volume = read_volume(cohort, case)
        grey = volume.array[0]
        bright = grey > (np.percentile(grey, 0.5) + np.percentile(grey, 99.5)) * 0.46
        found = class_probabilities(model, volume, batch=2)[0] > 0.5
        both = 2 * (found & bright).sum() / (found.sum() + bright.sum())
        assert both > 0.93
        for moved in (np.roll(bright, 1, 1), np.roll(bright, 1, 2), np.roll(bright, -1, 1), np.roll(bright, -1, 2)):
            assert 2 * (found & moved).sum() / (found.sum() + moved.sum()) < both


class SureOnOneSide(torch.nn.Module):
    """A fake network whose logits are far apart, so that resizing them or their softmax is not the same."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        side = 20 * images[:, :1].sign()
        return torch.cat([torch.zeros_like(side), side - 4, torch.full_like(side, -60.0)], 1)


def test_logits_and_not_probabilities_go_back_to_the_slices_own_pixels(cohort):
    volume = read_volume(cohort, cohort.cases[0])
    record = model_record(pixel_mm=2.0)
    found = class_probabilities(TrainedNetwork(SureOnOneSide(), record, torch.device("cpu")), volume)[0]
    # Between sure pixels a probability would be one quarter or three; a logit there is still far from 0.
    assert ((found > 0.2) & (found < 0.8)).mean() < 0.01
    assert (found > 0.99).any()
    assert (found < 0.01).any()


def test_an_image_with_other_channels_is_refused(cohort, finished):
    volume = read_volume(cohort, cohort.cases[0])
    two = type(volume)(np.repeat(volume.array, 2, 0), volume.geometry)
    with pytest.raises(CaseError, match="2 channels"):
        class_probabilities(load_model(finished[0].model), two)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    from SSLSegLib.checkpoint.configuration import small_configuration
    from SSLSegLib.weights.sam2_model import build_sam2
    from SSLSegLib.weights.saving import save_sam2

    path = tmp_path_factory.mktemp("sam2") / "sam.safetensors"
    configuration = small_configuration(image_size=64, hidden=32, memory=16, trunk=16, stages=(1, 1, 1, 1))
    save_sam2(path, build_sam2(configuration), configuration)
    return path


@pytest.mark.parametrize(
    ("method", "by", "first_weight"), [("unimatch", "student", 1.0), ("mean-teacher", "teacher", 0.5)]
)
def test_sam2_guides_by_prompts_from_the_models_own_predictions_and_never_from_references(
    tmp_path, sam2, method, by, first_weight
):
    """UniMatch v2 + SAM2, and the mean teacher + SAM of SemiSAM+; the references are not even there."""
    import shutil

    from SSLSegLib.unimatch.options import Prompting

    blind = make_cohort(tmp_path / "cohort")
    shutil.rmtree(tmp_path / "cohort" / "references")
    told = []
    train_and_label(
        blind,
        tmp_path / "run",
        tiny_options(method=method, guide="sam2", steps=1, prompting=Prompting(by=by)),
        sam2=sam2,
        device="cpu",
        progress=lambda event, **fields: told.append((event, fields)),
    )
    assert [fields["guide_weight"] for event, fields in told if event == "metric"] == [first_weight]
    name = "Mean teacher" if method == "mean-teacher" else "UniMatch v2"
    assert load_pseudo_label(tmp_path / "run" / "results" / "c2").provenance["method"] == f"{name} + SAM2"


def test_the_upper_bound_learns_from_references_and_supervised_only_from_labels(cohort, tmp_path):
    for method, seen in (("upper-bound", range(4)), ("supervised", range(2))):
        where = train_and_label(cohort, tmp_path / method, tiny_options(method=method, steps=1), device="cpu")
        assert sorted(path.name for path in where.slices.glob("*.label.npy")) == [f"c{n}.label.npy" for n in seen]
        assert load_model(where.model).record.labelled == tuple(f"c{n}" for n in seen)


def test_a_guide_without_its_source_is_refused_before_any_work(cohort, tmp_path):
    with pytest.raises(CohortError, match="pseudo-labels"):
        train_and_label(cohort, tmp_path / "a", tiny_options(guide="tffs"))
    with pytest.raises(WeightsError, match="weights"):
        train_and_label(cohort, tmp_path / "b", tiny_options(guide="sam2"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_are_whole(preset):
    options = UniMatchOptions.of(preset, steps=None)
    assert options.size % options.network.patch == 0
    assert options.steps == PRESETS[preset]["steps"]


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        tiny_options(size=33)
    with pytest.raises(ValueError, match="guide"):
        tiny_options(method="supervised", guide="sam2")

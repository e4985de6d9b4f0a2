"""``vessa bank``, ``segment`` and ``train`` from the command line, on real files with tiny weights."""

import importlib.util
import json

import pytest
from tiny import make_cohort
from tiny_vessa import SAM2, tiny_sam2
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.pseudolabels.storage import is_complete, read_result
from SSLSegLib.vessa.configuration import VessaConfiguration, tiny_language
from SSLSegLib.vessa.model import build_vessa
from SSLSegLib.vessa.saving import save_vessa
from SSLSegLib.vessa.templates import TemplateBank
from SSLSegLib.weights.saving import save_sam2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"), labelled=3, unlabelled=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_sam2(path, tiny_sam2(), SAM2)
    return path


def command(*arguments, code=0):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def run(*arguments, code=0):
    return command("vessa", *arguments, code=code)


def test_bank_then_segment_without_vlm_then_resume(cohort, weights, tmp_path):
    bank, job = tmp_path / "bank", tmp_path / "job"
    assert "templates" in run("bank", cohort.folder, "--out", bank, "--sam2", weights)
    segment = ("segment", cohort.folder, "--bank", bank, "--out", job, "--sam2", weights, "--no-scene", "--no-report")
    said = run(*segment)
    assert "without VLM" in said
    results = [job / "results" / case.id for case in cohort.unlabelled]
    assert all(is_complete(folder) for folder in results)
    assert read_result(results[0]).provenance["method"] == "VESSA without VLM"
    before = {folder: (folder / "result.json").read_bytes() for folder in results}
    (results[1] / "result.json").unlink()
    run(*segment)  # the same job again: only what is missing is made, and it comes out the same
    assert {folder: (folder / "result.json").read_bytes() for folder in results} == before
    assert json.loads((job / "manifest.json").read_text())["kind"] == "vessa"


def test_a_bank_is_not_put_into_the_folder_of_a_cohort(cohort, weights):
    before = {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*")}
    said = run("bank", cohort.folder, "--out", cohort.folder, "--sam2", weights, code=2)
    assert "holds no template bank" in said
    assert {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*")} == before


def test_a_bank_that_changed_since_the_job_was_made_is_refused(cohort, weights, tmp_path):
    bank, job = tmp_path / "bank", tmp_path / "job"
    run("bank", cohort.folder, "--out", bank, "--sam2", weights, "--per-class", 1)
    segment = ("segment", cohort.folder, "--bank", bank, "--out", job, "--sam2", weights, "--no-scene", "--no-report")
    run(*segment)
    run("bank", cohort.folder, "--out", bank, "--sam2", weights)
    assert len(TemplateBank.load(bank)) > 3
    done = CliRunner().invoke(app, ["run", str(job)])
    assert done.exit_code == 2


def test_train_then_segment_with_the_trained_model(cohort, weights, tmp_path):
    trained, job = tmp_path / "trained", tmp_path / "job"
    said = run(
        *("train", cohort.folder, "--out", trained, "--sam2", weights, "--language", "tiny", "--steps", 2),
        *("--batch", 1, "--accumulate", 1, "--validate-every", 2, "--float32", "--cpu", "--bank-part", "0.3"),
    )
    assert "validation Dice" in said
    model = trained / "model"
    run("bank", cohort.folder, "--out", tmp_path / "bank", "--model", model, "--per-class", 1)
    run(
        *("segment", cohort.folder, "--bank", tmp_path / "bank", "--out", job, "--model", model, "--device", "cpu"),
        *("--no-scene", "--no-report"),
    )
    assert read_result(job / "results" / cohort.unlabelled[0].id).provenance["method"] == "VESSA"


def test_a_specialist_is_trained_with_vessa_as_its_guide_and_labels_the_cohort(cohort, weights, tmp_path):
    run("bank", cohort.folder, "--out", tmp_path / "bank", "--sam2", weights, "--per-class", 1)
    guide = (
        *("guide", cohort.folder, "--bank", tmp_path / "bank", "--out", tmp_path / "job", "--sam2", weights),
        *("--steps", 2, "--batch", 1, "--device", "cpu", "--no-report", "--no-scene"),
    )
    assert "without VLM" in run(*guide)
    job = tmp_path / "job"
    results = [job / "results" / case.id / "result.json" for case in cohort.unlabelled]
    assert read_result(results[0].parent).provenance["method"] == "UniMatch v2 + VESSA"
    assert {path.name for path in (job / "unimatch").iterdir()} == {"model", "training"}
    before = [path.read_bytes() for path in results]
    results[1].unlink()
    # The same job by the other command, finished: nothing is trained again, the model is there.
    command("unimatch", guide[1], "--guide", "vessa", *guide[2:])
    assert [path.read_bytes() for path in results] == before


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--guide", "vessa"), "needs a template bank"),
        (("--guide", "vessa", "--bank", "b", "--size", 28), "--size"),
        (("--guide", "vessa", "--bank", "b", "--guide-job", "j"), "--guide-job"),
        (("--bank", "b"), "--bank is given, but the guide is 'none'"),
        (("--guide", "sam2", "--sam2", "s", "--vessa-model", "m"), "--vessa-model is given, but the guide is 'sam2'"),
    ],
)
def test_a_guide_that_lacks_something_is_refused_before_work_starts(cohort, tmp_path, option, said):
    assert said in command("unimatch", cohort.folder, "--out", tmp_path / "job", *option, code=2)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("way", ["segment", "guide"])
def test_a_bank_of_other_classes_is_refused_before_work_starts(cohort, weights, tmp_path, way):
    other = tmp_path / "other.json"
    content = json.loads((cohort.folder / "cohort.json").read_text())
    names = [each["name"] for each in content["classes"]]
    for case in content["cases"]:  # lies elsewhere than the files
        case["images"] = [str(cohort.folder / path) for path in case["images"]]
        case |= {what: str(cohort.folder / case[what]) for what in ("label", "reference") if case.get(what)}

    def renamed(*wanted):
        for each, name in zip(content["classes"], wanted, strict=True):
            each["name"] = name
        other.write_text(json.dumps(content))

    run("bank", cohort.folder, "--out", tmp_path / "bank", "--sam2", weights, "--per-class", 1)
    asked = (way, other, "--bank", tmp_path / "bank", "--out", tmp_path / "job", "--sam2", weights)
    renamed(*(f"other {name}" for name in names))
    assert "holds none of the classes" in run(*asked, code=2)
    assert not (tmp_path / "job").exists()
    renamed(*names[:-1], "another")  # of several: can be segmented without, but would be learnt as background
    if way == "guide":
        assert "No template shows 'another'" in run(*asked, code=2)
        assert not (tmp_path / "job").exists()


def test_an_encoder_of_another_kind_is_refused_before_anything_is_computed(cohort, weights, tmp_path):
    (tmp_path / "encoder.pth").write_text("no weights")
    run("bank", cohort.folder, "--out", tmp_path / "bank", "--sam2", weights, "--per-class", 1)
    places = ("--bank", tmp_path / "bank", "--out", tmp_path / "job", "--device", "cpu")
    said = run("guide", cohort.folder, *places, "--sam2", weights, "--encoder", tmp_path / "encoder.pth", code=2)
    assert "no file of weights" in said
    assert not (tmp_path / "job" / "unimatch").exists()


def test_a_missing_package_is_told_before_the_weights_are_loaded(cohort, weights, tmp_path, monkeypatch):
    run("bank", cohort.folder, "--out", tmp_path / "bank", "--sam2", weights, "--per-class", 1)
    found = importlib.util.find_spec

    def lacking(name, *more):
        return None if name == "accelerate" else found(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    places = ("--bank", tmp_path / "bank", "--out", tmp_path / "job", "--device", "cpu")
    said = run("guide", cohort.folder, *places, "--sam2", weights, code=2)
    assert "accelerate is not installed" in said
    assert "Loading the weights" not in said


def test_weights_named_from_where_one_stands_are_found_from_elsewhere(cohort, weights, tmp_path, monkeypatch):
    run("bank", cohort.folder, "--out", tmp_path / "bank", "--sam2", weights, "--per-class", 1)
    monkeypatch.chdir(weights.parent)
    job = tmp_path / "job"
    places = ("--bank", tmp_path / "bank", "--out", job, "--device", "cpu", "--no-report", "--no-scene")
    run("segment", cohort.folder, *places, "--sam2", weights.name)
    (job / "results" / cohort.unlabelled[0].id / "result.json").unlink()
    monkeypatch.chdir(tmp_path)
    command("run", job)
    assert is_complete(job / "results" / cohort.unlabelled[0].id)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--language", "none", "--without-memory"), "nothing says what to segment"),
        (("--language", "tiny", "--learning-rate", 0), "nothing is learnt"),
    ],
)
def test_a_training_that_could_learn_nothing_is_refused_with_a_word(cohort, weights, tmp_path, option, said):
    assert said in run("train", cohort.folder, "--out", tmp_path / "t", "--sam2", weights, "--cpu", *option, code=2)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("way", ["segment", "guide", "unimatch", "bank"])
def test_a_folder_of_no_vessa_is_refused_by_its_name_before_work_starts(cohort, weights, tmp_path, way):
    places = (*("--bank", tmp_path / "bank"), *("--out", tmp_path / "job"))
    nowhere = tmp_path / "nowhere"
    arguments = {
        "segment": ("vessa", "segment", cohort.folder, *places, "--model", nowhere),
        "guide": ("vessa", "guide", cohort.folder, *places, "--model", nowhere),
        "unimatch": ("unimatch", cohort.folder, *places, "--guide", "vessa", "--vessa-model", nowhere),
        "bank": ("vessa", "bank", cohort.folder, "--out", tmp_path / "job", "--model", nowhere),
    }
    said = command(*arguments[way], code=2)
    assert f"{nowhere} holds no VESSA" in said
    assert "vessa train" in said
    assert not (tmp_path / "job").exists()


def test_the_folder_of_a_training_is_not_its_model_and_the_way_out_names_that(cohort, weights, tmp_path):
    model = tmp_path / "run" / "model"
    save_vessa(model, build_vessa(VessaConfiguration(sam2=SAM2, single_mask=False), sam2=tiny_sam2()))
    segment = ("segment", cohort.folder, "--bank", tmp_path / "bank", "--out", tmp_path / "job", "--device", "cpu")
    assert f"folder of the model: {model}" in run(*segment, "--model", model.parent, code=2)
    (model / "sam2.safetensors").unlink()
    assert "sam2.safetensors is missing" in run(*segment, "--model", model, code=2)


@pytest.mark.parametrize("option", ["--dino", "--encoder"])
def test_weights_that_are_not_there_are_named_before_work_starts(cohort, weights, tmp_path, option):
    run("bank", cohort.folder, "--out", tmp_path / "bank", "--sam2", weights, "--per-class", 1)
    places = ("--bank", tmp_path / "bank", "--out", tmp_path / "job")
    said = run("guide", cohort.folder, *places, "--sam2", weights, option, tmp_path / "none.pth", code=2)
    assert f"no file {tmp_path / 'none.pth'}" in said
    assert option in said
    assert not (tmp_path / "job").exists()


def test_a_model_trained_without_memory_has_a_bank_and_segments_by_its_language_model(cohort, weights, tmp_path):
    configuration = VessaConfiguration(sam2=SAM2, language=tiny_language(hidden=32), memory=False)
    save_vessa(tmp_path / "model", build_vessa(configuration, sam2=tiny_sam2()))
    model = ("--model", tmp_path / "model", "--device", "cpu")
    run("bank", cohort.folder, "--out", tmp_path / "bank", *model, "--per-class", 1)
    segment = ("segment", cohort.folder, "--bank", tmp_path / "bank", *model, "--no-report", "--no-scene")
    run(*segment, "--out", tmp_path / "job")
    assert is_complete(tmp_path / "job" / "results" / cohort.unlabelled[0].id)
    assert "nothing says" in run(*segment, "--out", tmp_path / "other", "--without-vlm", code=2)


def test_a_language_model_that_is_not_here_is_not_downloaded_unasked(cohort, weights, tmp_path):
    said = run("train", cohort.folder, "--out", tmp_path / "t", "--sam2", weights, "--language", "2B", "--cpu", code=2)
    assert "--download" in said
    assert not (tmp_path / "t").exists()


def test_a_folder_without_a_bank_names_the_way_out(cohort, weights, tmp_path):
    said = run("segment", cohort.folder, "--bank", tmp_path, "--out", tmp_path / "j", "--sam2", weights, code=2)
    assert "vessa bank" in said

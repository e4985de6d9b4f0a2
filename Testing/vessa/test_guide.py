"""Stage 2: places of views, the cache, the guide, and a whole small training."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny import CLASSES, NETWORK, make_cohort
from tiny_vessa import tiny_vessa

from SSLSegLib.cases.cohort import Window
from SSLSegLib.errors import CohortError, JobError
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.guides import GuideRequest, with_background
from SSLSegLib.unimatch.options import Prompting
from SSLSegLib.unimatch.slices import StackBuilder
from SSLSegLib.unimatch.views import VIEWS, Origin, draw_weak_view, outside, warp
from SSLSegLib.vessa.cache import CachedInputs, build_cache, cache_bytes
from SSLSegLib.vessa.features import Sam2Features
from SSLSegLib.vessa.guide import GuidedOptions, VessaGuide, make_vessa_guide
from SSLSegLib.vessa.inputs import LiveInputs, Place
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.places import Places
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.slices import CohortSlices
from SSLSegLib.vessa.stage2 import train_guided
from SSLSegLib.vessa.templates import TemplateBank

IDS = ["c2", "c3"]


def options(**changes):
    values = {
        "network": NETWORK,
        "size": 32,
        "steps": 4,
        "batch": 2,
        "threshold": 0.3,
        "learning_rate": 1e-3,
        "decoder_factor": 2.0,
        "save_every": 2,
        "report_every": 1,
    }
    return GuidedOptions.of("quick", **{**values, **changes})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def parts(cohort):
    vessa = LoadedVessa(tiny_vessa(), "tiny", "0" * 64, torch.device("cpu"), "test")
    features = Sam2Features(vessa.model.segmenter.sam2, "tiny")
    return vessa, TemplateBank.of(CohortSlices(cohort), features), features


@pytest.fixture(scope="module")
def live(cohort, parts):
    return LiveInputs(cohort, *parts, VessaOptions())


@pytest.fixture(scope="module")
def batches(cohort, tmp_path_factory):
    builder = StackBuilder(cohort, tmp_path_factory.mktemp("stacks"), 1.0)
    return StepBatches(builder.build(cohort.labelled), builder.build(cohort.unlabelled), options())


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def cache(request, live, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"cache-{request.param}")
    build_cache(live, folder, dtype=getattr(torch, request.param))
    return request.param, CachedInputs(folder, IDS)


def request_of(batch, *, fraction=0.0, seed=0):
    size = batch.weak.shape[1]
    draw = torch.Generator().manual_seed(3)
    prediction = torch.rand(len(batch.weak), 3, 4, 4, generator=draw)
    prediction = F.interpolate(prediction, (size, size), mode="bilinear").mul(8).softmax(1)
    return GuideRequest(batch.weak, prediction, None, fraction, np.random.default_rng(seed), batch.origins)


def test_a_map_of_a_slice_comes_into_the_view_as_warping_it_would():
    rng = np.random.default_rng(0)
    shape = (40, 60)
    for _ in range(5):
        view = draw_weak_view(rng, VIEWS["medical"], shape, (1.3, 0.8), 48)
        logits = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))
        places = Places.of([Origin(0, 0, view, shape)])
        found = places.to_views(logits, [0])[0, 0]
        expected = warp(logits[0], view)[0].sigmoid() * ~outside(view, shape)
        assert ((found - expected).abs() > 1e-3).float().mean() < 0.01  # but for rounding at the very border


def test_a_coarse_square_map_comes_into_a_turned_view_of_an_oblong_slice_as_the_fine_one():
    shape, rng = (40, 60), np.random.default_rng(2)
    rows, columns = np.indices(shape)
    fine = torch.from_numpy((0.1 * rows - 0.07 * columns).astype(np.float32))[None, None]
    coarse = F.interpolate(fine, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    for _ in range(5):
        view = draw_weak_view(rng, VIEWS["medical"], shape, (1.3, 0.8), 48)
        places = Places.of([Origin(0, 0, view, shape)])
        one, other = (places.to_views(each, [0])[0, 0] for each in (fine, coarse))
        assert (one - other).abs().mean() < 0.01


def test_a_prediction_goes_back_to_where_it_was_seen():
    rng = np.random.default_rng(1)
    shape = (64, 96)
    view = draw_weak_view(rng, VIEWS["medical"], shape, (1.0, 1.0), 48)
    rows, columns = np.indices(shape)
    whole = torch.from_numpy(((rows - 30) ** 2 + (columns - 30) ** 2 < 150).astype(np.float32))[None]
    seen = warp(whole, view)[None]
    places = Places.of([Origin(0, 0, view, shape)])
    back = places.to_slices(seen, [0], 32)[0, 0] > 0.5
    covered = places.to_slices(torch.ones_like(seen), [0], 32)[0, 0] > 0.5
    coarse = F.interpolate(whole[None], (32, 32), mode="bilinear", antialias=True, align_corners=False)[0, 0] > 0.5
    assert 0.1 < covered.float().mean() < 1
    assert coarse[covered].any()
    assert (back[covered] != coarse[covered]).float().mean() < 0.03
    assert not back[~covered].any()


def test_cached_inputs_are_those_computed_anew(cache, live):
    kind, cached = cache
    places = [Place(0, 1, 0, 2), Place(1, 2, 1, 0), Place(1, 0, 0, 1)]
    ours, anew = cached.fetch(places), live.fetch(places)
    exact = {"atol": 2e-5, "rtol": 1e-4} if kind == "float32" else {"atol": 0.02, "rtol": 0.01}
    torch.testing.assert_close(ours.attended, anew.attended, **exact)
    for one, other in zip(ours.finer, anew.finer, strict=True):
        torch.testing.assert_close(one, other, **exact)
    torch.testing.assert_close(ours.prompts, anew.prompts, atol=2e-5, rtol=1e-4)
    for case, slice_, target in ((0, 1, 0), (1, 2, 1)):
        np.testing.assert_array_equal(cached.weights(case, slice_, target), live.weights(case, slice_, target))


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_cached_and_uncached_guide_give_the_same_masks(cache, live, parts, batches, fraction):
    kind, cached = cache
    guides = [VessaGuide(parts[0].model.segmenter, source, 2) for source in (cached, live)]
    for step in range(3):
        ours, anew = (guide(request_of(batches[step], fraction=fraction)) for guide in guides)
        difference = (ours - anew).abs()
        assert anew[:, 1:].std() > 0.01
        if kind == "float32":
            assert difference.max() < 1e-4
            assert torch.equal(ours.argmax(1), anew.argmax(1))
        else:
            assert difference.max() < 0.02
            assert (ours.argmax(1) != anew.argmax(1)).float().mean() < 0.02  # these masks are all but noise


def test_without_feedback_a_view_shows_what_the_decoder_says_of_the_slice(live, parts, batches):
    batch = batches[0]
    asked = request_of(batch)
    answer = VessaGuide(parts[0].model.segmenter, live, 2)(asked)
    places, rng = Places.of(batch.origins), np.random.default_rng(0)
    binary = torch.zeros(2, 2, 32, 32)
    for view in range(2):
        case, slice_ = places.cases[view], places.slices[view]
        for target in range(2):
            weights = live.weights(case, slice_, target)
            candidate = int(rng.choice(len(weights), p=weights))
            inputs = live.fetch([Place(case, slice_, target, candidate)])
            logits = parts[0].model.segmenter.decode(*inputs).logits
            binary[view, target] = places.to_views(logits, [view])[0, 0]
    torch.testing.assert_close(answer, with_background(binary), atol=1e-4, rtol=1e-3)


def test_feedback_begins_at_its_moment_and_changes_the_answer(live, parts, batches):
    guide = VessaGuide(parts[0].model.segmenter, live, 2, Prompting(start=0.25, jitter=0.0))
    batch = batches[1]
    early, before, after = (guide(request_of(batch, fraction=f)) for f in (0.0, 0.24, 0.25))
    assert torch.equal(early, before)
    assert (after - before).abs().max() > 1e-3
    silent = VessaGuide(parts[0].model.segmenter, live, 2, Prompting(start=0.25), feedback=False)
    assert torch.equal(silent(request_of(batch, fraction=0.9)), early)


def test_a_class_that_the_teacher_does_not_see_is_asked_for_without_prompt(live, parts, batches):
    guide = VessaGuide(parts[0].model.segmenter, live, 2, Prompting(start=0.0, jitter=0.0))
    asked = request_of(batches[1], fraction=0.5)
    asked.prediction[:] = torch.tensor([0.9, 0.05, 0.05])[None, :, None, None]
    plain = VessaGuide(parts[0].model.segmenter, live, 2, feedback=False)(request_of(batches[1]))
    torch.testing.assert_close(guide(asked), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("forms", [("mask",), ("box",), ("points",), ("mask", "box", "points")])
def test_every_form_of_feedback_reaches_the_decoder(live, parts, batches, forms):
    plain = VessaGuide(parts[0].model.segmenter, live, 2, feedback=False)(request_of(batches[1]))
    told = VessaGuide(parts[0].model.segmenter, live, 2, Prompting(forms=forms, start=0.0))
    assert (told(request_of(batches[1], fraction=0.5)) - plain).abs().max() > 1e-4


def test_the_box_of_a_structure_that_the_view_cuts_off_is_not_given(live, parts):
    guide = VessaGuide(parts[0].model.segmenter, live, 2, Prompting(forms=("box",), jitter=0.0, start=0.0))
    # The view shows the upper left quarter of the slice.
    view = draw_weak_view(np.random.default_rng(0), VIEWS["medical"], (32, 32), (1.0, 1.0), 32)
    view = type(view)(np.eye(2) * 0.5, np.zeros(2), 32)
    places = Places.of([Origin(0, 0, view, (32, 32))])
    prediction = torch.zeros(1, 3, 32, 32)
    prediction[:, 0] = 1
    for rows, cut in ((slice(6, 20), False), (slice(20, 32), True)):
        asked = prediction.clone()
        asked[:, 0, rows, 6:20] = 0
        asked[:, 1, rows, 6:20] = 1
        prompts, told = guide._prompts(places, asked, [Place(0, 0, 0, 0)], [0], [0], np.random.default_rng(0))
        assert told == [0]
        assert (prompts["points"]["point_labels"][0].tolist() == [-1, -1]) is cut
        if not cut:
            # View pixels 6..20 are slice pixels 3..10, twice as large in frames of 64 pixels.
            expected = torch.tensor([[6.0, 6.0], [20.0, 20.0]])
            torch.testing.assert_close(prompts["points"]["point_coords"][0], expected, atol=4.0, rtol=0)


def test_the_cache_is_made_once_and_again_when_anything_it_depends_on_changes(live, cohort, parts, tmp_path):
    build_cache(live, tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    build_cache(live, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    vessa, bank, features = parts
    options_ = VessaOptions()
    changed = (
        LiveInputs(cohort, vessa, bank.part(range(3)), features, options_),
        LiveInputs(cohort, replace(vessa, sha256="1" * 64), bank, features, options_),
        LiveInputs(cohort.model_copy(update={"window": Window(level=100, width=400)}), vessa, bank, features, options_),
        LiveInputs(cohort, vessa, bank, features, VessaOptions(temperature=0.2)),
    )
    for other in changed:
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        build_cache(other, tmp_path)
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} != before


def test_the_size_of_a_cache_is_known_before(live, tmp_path):
    build_cache(live, tmp_path)
    slices = sum(live.slices(case) for case in range(2))
    expected = cache_bytes(slices=slices, classes=2, top=3, side=4, width=32, finer=(4, 8))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.bin")) == expected


def test_a_full_disk_is_told_before_anything_is_computed(live, tmp_path, monkeypatch):
    monkeypatch.setattr("SSLSegLib.vessa.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(JobError, match="GiB are free"):
        build_cache(live, tmp_path)
    assert not list(tmp_path.iterdir())


def test_with_a_cache_the_language_model_is_let_go_of(cohort, tmp_path):
    vessa = LoadedVessa(tiny_vessa(), "tiny", "0" * 64, torch.device("cpu"), "test")
    features = Sam2Features(vessa.model.segmenter.sam2, "tiny")
    bank = TemplateBank.of(CohortSlices(cohort), features)
    make_vessa_guide(cohort, vessa, bank, features, tmp_path)
    assert vessa.model.language is None


def test_a_bank_of_other_features_cannot_guide(cohort, parts):
    vessa, bank, _ = parts
    with pytest.raises(CohortError, match="indexed by"):
        LiveInputs(cohort, vessa, bank, Sam2Features(vessa.model.segmenter.sam2, "other"), VessaOptions())


def test_a_guided_training_runs_through_and_resumes_as_if_never_interrupted(cohort, tmp_path):
    def trained(folder, until=None):
        def progress(event, **fields):
            if event == "metric" and fields["step"] == until:
                raise KeyboardInterrupt

        vessa = LoadedVessa(tiny_vessa(language=False), "tiny", "0" * 64, torch.device("cpu"), "test")
        features = Sam2Features(vessa.model.segmenter.sam2, "tiny")
        bank = TemplateBank.of(CohortSlices(cohort), features)
        return train_guided(cohort, folder, options(), vessa, bank, features, progress=progress)

    where = trained(tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", until=3)
    again = trained(tmp_path / "two")
    weights = [load_file(next(each.model.glob("*.safetensors"))) for each in (where, again)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-6, rtol=1e-5)
    curve = [json.loads(line) for line in (where.training / "curve.jsonl").read_text().splitlines()]
    assert curve[0]["guide_weight"] == 1.0
    assert curve[-1]["guide_weight"] < 0.5
    assert all(each["guide_agreement"] is not None for each in curve)
    record = json.loads((where.model / "model.json").read_text())
    assert record["options"]["guide"] == "vessa"
    assert [each["name"] for each in record["classes"]] == [each.name for each in CLASSES]

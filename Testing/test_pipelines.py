import importlib.util
import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from scipy.interpolate import interp1d
from scipy.special import expit, logit

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.frames import slices_to_frames
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_label, read_volume
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.errors import CohortError
from SSLSegLib.evaluation.scores import CaseScores, ClassScores
from SSLSegLib.jobs.estimate import count_work
from SSLSegLib.pipelines import advice, leave_one_out, pseudo_label, reliability
from SSLSegLib.pipelines.encoding import EncodedCase, encode_labelled
from SSLSegLib.pipelines.place import Alignment, class_places, zoomed
from SSLSegLib.tffs.engine import TffsEngine
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.place import moved_prior, place_prompts
from SSLSegLib.tffs.positions import insertion_positions
from SSLSegLib.tffs.reference import stock_run
from SSLSegLib.tffs.registration import registrable
from SSLSegLib.weights.loading import load_sam2
from SSLSegLib.weights.sam2_model import build_sam2

_SPECIFICATION = importlib.util.spec_from_file_location("small_cohort", Path(__file__).with_name("small_cohort.py"))
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)

OPTIONS = TffsOptions(insertions=2, largest_component=False)
SEED = 5


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort.load(small_cohort.write_small_cohort(tmp_path_factory.mktemp("cohort"), slices=4))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return load_sam2(small_cohort.write_random_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


def run(cohort, model, options=OPTIONS, **more):
    labels = {}
    pseudo_label(cohort, model, options, seed=SEED, sink=lambda label: labels.setdefault(label.case_id, label), **more)
    return labels


@pytest.fixture(scope="module")
def labels(cohort, model):
    return run(cohort, model)


def changed(cohort, **roles):
    """The cohort with cases in other roles; ``None`` leaves a case out."""
    cases = []
    for case in cohort.cases:
        role = roles.get(case.id, case.role)
        if role is None:
            continue
        known = case.label or case.reference
        update = {"role": role, "label": known if role == "labelled" else None}
        cases.append(case.model_copy(update={**update, "reference": None if role == "labelled" else known}))
    return cohort.model_copy(update={"cases": tuple(cases)})


def spans(mask):
    """From where to where a mask reaches along each axis, as shares of it."""
    at = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(some[0] / size, (some[-1] + 1) / size) for some, size in zip(at, mask.shape, strict=True)]


def square_around(shown, masks):
    """Rows and columns around a class, of a size of which the largest of the masks takes up 60 % of a side."""
    side = min(max(high - low for mask in masks for low, high in spans(mask)[1:]) / 0.6, 1)
    assert side > 0.25
    starts = [min(max((low + high) / 2 - side / 2, 0), 1 - side) for low, high in spans(shown)[1:]]
    counts = [round(side * size - 1e-6) for size in shown.shape[1:]]
    both = zip(starts, counts, shown.shape[1:], strict=True)
    first = [(min(round(start * size), size - count), count) for start, count, size in both]
    return tuple(slice(start, start + count) for start, count in first)


def laid_on(cohort, case, masks):
    """How often a class lies at each voxel of a case in labelled ones registered to it, and where it is likely."""

    def ready(some, beside=None):
        volume = read_volume(cohort, some)
        lengths = volume.geometry.spacing
        size = beside and beside.size_of(np.multiply(lengths, volume.geometry.shape))
        return registrable(to_display_range(volume, "MR", None), size, spacing=lengths)

    fixed = ready(case)
    moved = [
        (found, mask) for name, mask in masks.items() for found in fixed.displacements(ready(cohort.case(name), fixed))
    ]
    prior = moved_prior(moved, read_volume(cohort, case).array.shape[1:])
    assert 0.2 < prior.max() <= 1
    return prior, prior >= prior.max() / 2


@pytest.mark.parametrize("told", [True, False])
def test_the_mean_over_insertions_is_that_of_the_stock_predictor_doing_every_run(cohort, model, labels, told):
    """With weights that were trained to be told the place, as these say they were, and by the option without."""
    found = labels if told else run(cohort, model, OPTIONS.model_copy(update={"place": False}))
    predictor = build_sam2(model.configuration, predictor=True)
    predictor.load_state_dict(model.model.state_dict())

    case = cohort.unlabelled[0]
    shape = read_volume(cohort, case).array.shape[1:]
    for number, segment in enumerate(cohort.classes):
        masks = {each.id: read_label(cohort, each).array == segment.value for each in cohort.labelled}
        known, likely = laid_on(cohort, case, masks)
        regions = {name: (slice(None),) * 2 for name in (*masks, case.id)}
        if told:
            shown = {**masks, case.id: likely}
            regions = {name: square_around(mask, list(masks.values())) for name, mask in shown.items()}

        def frames(case, regions=regions):
            display = to_display_range(read_volume(cohort, case), "MR", None)
            return slices_to_frames(display[:, :, *regions[case.id]], model.image_size)

        masks = {name: mask[:, *regions[name]] for name, mask in masks.items()}
        rows, columns = regions[case.id]
        known, looks = known[:, rows, columns], []
        unlabelled, (_, *in_plane) = frames(case), known.shape
        for look in range(2):
            looks.append([])
            for labelled in cohort.labelled:
                mask = torch.from_numpy(masks[labelled.id])
                position = insertion_positions(SEED, case.id, labelled.id, segment.name, len(unlabelled), 2)[look]
                before, after = torch.from_numpy(known[:position]), torch.from_numpy(known[position:])
                video = torch.cat([before, torch.zeros(len(mask), *in_plane), after]).float()
                rough = place_prompts(video, model.image_size // 4) if told else None
                one = stock_run(predictor, unlabelled, frames(labelled), mask, position, tuple(in_plane), rough)
                looks[-1].append(one.numpy())
            known = expit(3 * logit(np.mean(looks[-1], axis=0).astype(float)))  # the second look is told of the first
        runs = looks[0] + looks[1]
        expected = np.zeros((len(runs), *shape))
        expected[:, :, rows, columns] = runs
        assert np.std(runs) > 0.05, "the weights must do something for this test to mean anything"
        assert np.abs(found[case.id].probability[number] - expected.mean(axis=0)).max() < 1e-4
    assert found[case.id].spread.max() > 1e-3
    assert set(np.unique(found[case.id].mask)) <= {0, 1, 2}
    options = found[case.id].provenance["options"]
    assert options["place"] == ("told" if told else None)
    assert (options["views"] is not None) is told
    assert options["looks"] == (2 if told else 1)


@pytest.fixture(scope="module")
def thin(tmp_path_factory):
    """A cohort of thin slices, which are looked at from three sides; one class."""
    folder = tmp_path_factory.mktemp("thin")
    return Cohort.load(
        small_cohort.write_small_cohort(
            folder, unlabelled=1, slices=10, size=(64, 48), box=(26, 20), classes=1, thickness=1.5
        )
    )


def slices_across(shown, masks):
    """Slices along another axis around the class, as many as the largest mask has and a margin, 32 at most of them."""
    length = min(max(high - low for low, high in (spans(mask)[0] for mask in masks)) / 0.65, 1)
    count = round(length * len(shown) - 1e-6)
    start = min(max(np.mean(spans(shown)[0]) - length / 2, 0), 1 - length)
    start = min(round(start * len(shown)), len(shown) - count)
    return np.arange(start, start + count, 1 + (count - 1) // 32)


def test_of_thin_slices_the_insertions_take_three_planes_in_turn_and_the_second_look_is_told_of_the_first(thin, model):
    """Each run is the stock predictor's; what it is told and where it is put back is calculated by other means."""
    label = run(thin, model, TffsOptions(insertions=4, largest_component=False))["c2"]
    predictor = build_sam2(model.configuration, predictor=True)
    predictor.load_state_dict(model.model.state_dict())
    name, labelled = thin.classes[0].name, thin.labelled
    known = {case.id: read_label(thin, case).array == 1 for case in labelled}
    prior, likely = laid_on(thin, thin.case("c2"), known)
    images = {case.id: to_display_range(read_volume(thin, case), "MR", None)[0] for case in thin.cases}
    steps, orders = [], [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
    found = None
    total, count = np.zeros((2, *label.geometry.shape))
    for look in range(2):
        for number, (turn, case) in itertools.product(2 * look + np.arange(2), enumerate(labelled)):
            order = orders[(number + turn) % 3]
            turned = [mask.transpose(order) for mask in known.values()]

            def cutting(shown, order=order, turned=turned):
                shown = shown.transpose(order)
                slices = np.arange(10) if order[0] == 0 else slices_across(shown, turned)
                return slices, *square_around(shown, turned)

            slices, rows, columns = cutting(likely)
            steps.append(slices[1] - slices[0])

            def cut(volume, at, order=order):
                return np.ascontiguousarray(volume.transpose(order)[at[0]][:, at[1], at[2]])

            here, there = (slices, rows, columns), cutting(known[case.id])
            told = torch.from_numpy(cut(prior if found is None else found, here)).float()
            position = insertion_positions(SEED, "c2", case.id, name, len(slices), 4)[number]
            video = torch.cat([told[:position], torch.zeros(len(slices), *told.shape[1:]), told[position:]])
            rough = place_prompts(video, model.image_size // 4)
            shown = cut(images["c2"], here), cut(images[case.id], there)
            frames = [slices_to_frames(some[None], model.image_size) for some in shown]
            mask = torch.from_numpy(cut(known[case.id], there))
            one = stock_run(predictor, *frames, mask, position, tuple(told.shape[1:]), rough).numpy()
            every = np.arange(slices[0], slices[-1] + 1)
            for into, values in ((total, interp1d(slices, one, axis=0)(every)), (count, 1)):
                into.transpose(order)[every[0] : every[-1] + 1, rows, columns] += values
        mean = total / np.maximum(count, 1)
        found = expit(3 * logit(mean))
    assert max(steps) > 1, "slices must be left out for this test to mean anything"
    assert set(np.unique(count)) > {2, 6}, "planes must overlap in part"
    np.testing.assert_allclose(label.probability[0], mean, atol=1e-4)
    assert [view["plane"] for view in label.provenance["options"]["views"][name]] == [0, 1, 2]


def test_one_insertion_sees_the_stored_slices_only_and_thick_slices_are_never_looked_at_across(thin, model, cohort):
    for some, insertions, planes in ((thin, 1, 1), (thin, 2, 2), (cohort, 3, 1)):
        label = run(some, model, TffsOptions(insertions=insertions))["c2"]
        assert [len(views) for views in label.provenance["options"]["views"].values()] == [planes] * len(some.classes)


@pytest.mark.parametrize(("told", "times"), [(False, 1), (True, 2)])
def test_every_slice_goes_through_the_image_encoder_once_or_once_for_each_class_whose_region_is_shown(
    cohort, model, told, times
):
    seen = []
    hook = model.model.image_encoder.register_forward_pre_hook(lambda module, images: seen.append(len(images[0])))
    try:
        options = TffsOptions(insertions=3, place=None if told else False)
        run(cohort, model, options)
    finally:
        hook.remove()
    assert sum(seen) == times * sum(read_volume(cohort, case).array.shape[1] for case in cohort.cases)
    work = count_work(cohort, options, zoomed=zoomed(options, model))
    assert work.encoded == sum(seen), "the estimate knows"


def test_the_estimate_of_three_planes_is_an_upper_bound_and_progress_is_exact(thin, model):
    events = []
    options = TffsOptions(insertions=4)
    engine = pseudo_label(
        thin,
        model,
        options,
        seed=SEED,
        sink=lambda label: None,
        progress=lambda event, **fields: events.append((event, fields)),
    )
    work = count_work(thin, options, zoomed=zoomed(options, model))
    tracking = [fields for event, fields in events if event == "progress" and fields["stage"] == "Segmenting"]
    assert tracking[-1]["done"] == tracking[-1]["total"]
    assert 0.5 * work.tracked < tracking[-1]["total"] <= work.tracked  # across, a class is shown in fewer slices
    assert 0.5 * work.encoded < engine.counts.encoded <= work.encoded
    assert engine.counts.prompted <= work.prompted


def test_a_result_does_not_depend_on_order_or_on_what_was_finished_before(cohort, model, labels):
    turned = cohort.model_copy(update={"cases": (*cohort.labelled, *reversed(cohort.unlabelled))})
    again, rest = run(turned, model), run(cohort, model, skip=["c2"])
    assert list(again) == ["c3", "c2"]
    assert list(rest) == ["c3"]
    for case in ("c2", "c3"):
        assert np.array_equal(again[case].probability, labels[case].probability)
    assert np.array_equal(rest["c3"].probability, labels["c3"].probability)


def test_features_on_disk_give_the_same_as_in_memory(cohort, model, labels, tmp_path):
    on_disk = run(cohort, model, scratch=tmp_path)
    assert any(tmp_path.rglob("*.bin"))
    assert np.array_equal(on_disk["c3"].probability, labels["c3"].probability)


def test_a_labelled_case_without_the_class_is_skipped_and_not_counted(cohort, model, tmp_path):
    case = cohort.labelled[0]
    label = read_label(cohort, case)
    write_label(
        tmp_path / "only-2.nii.gz",
        LabelMap(np.where(label.array == 1, 0, label.array).astype(np.uint8), label.geometry),
        cohort.classes,
        reference=label.geometry,
    )
    without = case.model_copy(update={"label": str(tmp_path / "only-2.nii.gz")})
    poorer = cohort.model_copy(update={"cases": (without, *cohort.cases[1:])})
    fewer = changed(cohort, c0=None)
    found, expected = run(poorer, model)["c3"], run(fewer, model)["c3"]
    assert np.array_equal(found.probability[0], expected.probability[0])
    assert not np.array_equal(found.probability[1], expected.probability[1])


def test_with_weights_that_know_nothing_of_it_place_is_averaged_with_the_ensemble_of_each_class(cohort, model):
    untaught = replace(model, configuration=model.configuration.model_copy(update={"place_prompts": False}))
    without = run(cohort, untaught)
    placed = run(cohort, untaught, OPTIONS.model_copy(update={"place": True}))
    known = [read_label(cohort, case).array for case in cohort.labelled]
    for name, label in placed.items():
        assert label.provenance["options"]["place"] == "averaged"
        assert without[name].provenance["options"]["place"] is None
        for number, segment in enumerate(cohort.classes):
            masks = {case.id: array == segment.value for case, array in zip(cohort.labelled, known, strict=True)}
            prior, _ = laid_on(cohort, cohort.case(name), masks)
            expected = (without[name].probability[number] + prior) / 2
            np.testing.assert_allclose(label.probability[number], expected, atol=1e-6)


def test_the_place_is_the_same_however_a_labelled_scan_is_stored(cohort, model, labels, tmp_path):
    """A labelled scan with its slices in the other order, told to be so by its header."""
    case = cohort.labelled[0]
    turned = {}
    for kind, path in (("image", cohort.image_paths(case)[0]), ("label", cohort.label_path(case))):
        image = SimpleITK.Flip(SimpleITK.ReadImage(str(path)), [False, True, True])
        turned[kind] = str(tmp_path / f"{kind}.nii.gz")
        SimpleITK.WriteImage(image, turned[kind])
    stored = case.model_copy(update={"images": (turned["image"],), "label": turned["label"]})
    other = cohort.model_copy(update={"cases": (stored, *cohort.cases[1:])})
    found = []
    for some in (cohort, other):
        engine = TffsEngine(model.model, OPTIONS, model.device)
        known = encode_labelled(engine, some, some.labelled, model)
        unlabelled = some.unlabelled[0]
        image = EncodedCase(engine, some, unlabelled, model.image_size, read_volume(some, unlabelled).geometry)
        places = class_places(known, some.classes, OPTIONS, model)
        within = {name: place.within(Alignment(image)) for name, place in places.items()}
        found.append((within, {name: place.labelled_view(known[0]) for name, place in places.items()}))
    (one, views), (same, turned_views) = found
    for segment in cohort.classes:
        first, second = one[segment.name], same[segment.name]
        np.testing.assert_allclose(first.prior, second.prior, atol=1e-5)
        assert first.prior.max() > 0.1
        assert first.views == second.views
        region, turned_region = views[segment.name].region, turned_views[segment.name].region
        np.testing.assert_allclose(turned_region.rows, np.subtract(1, region.rows)[::-1])  # stored turned round
        np.testing.assert_allclose(turned_region.columns, region.columns)


def test_a_structure_that_reaches_the_edge_of_its_region_is_warned_of(cohort, model):
    """Random weights with a threshold of next to nothing find the class everywhere in its region."""
    everywhere = OPTIONS.model_copy(update={"threshold": 1e-6})
    for options, warned in ((everywhere, 2), (everywhere.model_copy(update={"place": False}), 0)):
        events = []
        run(cohort, model, options, progress=lambda event, events=events, **fields: events.append((event, fields)))
        cut = [fields for event, fields in events if event == "warning" and "reaches the edge" in fields["message"]]
        assert len({fields["case"] for fields in cut}) == warned
        assert all("--no-place" in fields["message"] for fields in cut)


def test_the_preset_paper_leaves_place_out(cohort, model):
    label = run(cohort, model, TffsOptions(preset="paper", insertions=1))["c3"]
    assert label.provenance["options"]["place"] is None


def test_another_seed_gives_other_insertions(cohort, model, labels):
    others = {}
    pseudo_label(cohort, model, OPTIONS, seed=SEED + 1, sink=lambda label: others.setdefault(label.case_id, label))
    assert not np.array_equal(others["c3"].probability, labels["c3"].probability)


def test_provenance_names_weights_seed_and_the_labelled_cases(labels, model):
    provenance = labels["c3"].provenance
    assert provenance["seed"] == SEED
    assert provenance["labelled"] == ["c0", "c1"]
    assert provenance["weights"] == {"name": "tiny", "sha256": model.sha256}
    assert provenance["options"]["insertions"] == 2


def test_progress_counts_every_tracked_frame_up_to_the_total(cohort, model):
    events = []
    run(cohort, model, progress=lambda event, **fields: events.append((event, fields)))
    tracking = [fields for event, fields in events if event == "progress" and fields["stage"] == "Segmenting"]
    done = [fields["done"] for fields in tracking]
    assert done == sorted(done)
    assert done[-1] == tracking[-1]["total"] == 2 * 4 * 2 * 2 * 2  # cases, slices, insertions, labelled, classes
    registered = [(fields["case"], fields["registered"]) for fields in tracking if "registered" in fields]
    assert registered == [("c2", 1), ("c2", 2), ("c3", 1), ("c3", 2)], "once for both classes"
    assert [fields["case"] for event, fields in events if event == "result"] == ["c2", "c3"]


@pytest.mark.parametrize(("place", "least", "most"), [(False, 1, 1), (None, 4, 6)])
def test_leave_one_out_scores_what_pseudo_labelling_that_case_from_the_others_gives(cohort, model, place, least, most):
    three = changed(cohort, c2="labelled", c3=None)
    alone = changed(three, c1="unlabelled")
    # Random weights may call everything foreground or nothing: a threshold in the middle makes Dice say something.
    probability = run(alone, model)["c1"].probability[0]
    middle = float(np.median(probability[probability > 0]))
    options = TffsOptions(insertions=2, threshold=middle, largest_component=False)
    options = options.model_copy(update={"place": place})
    found = run(alone, model, options)["c1"].mask
    truth = read_label(cohort, cohort.case("c1")).array
    seen = []
    hook = model.model.image_encoder.register_forward_pre_hook(lambda module, images: seen.append(len(images[0])))
    try:
        scores = leave_one_out(three, model, options, seed=SEED)
    finally:
        hook.remove()
    # Each slice once though each case is used in both roles; or for the regions of both classes in each case, of a size
    # that may be another without each of the others.
    assert least * 3 * 4 <= sum(seen) <= most * 3 * 4
    assert [case.case_id for case in scores] == ["c0", "c1", "c2"]
    for each in scores[1].classes:
        a, b = found == each.value, truth == each.value
        assert each.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-12)
    assert 0.01 < scores[1].classes[0].dice < 0.99


def test_leave_one_out_leaves_no_more_features_on_disk_than_the_classes_need_at_once(cohort, model, tmp_path):
    three = changed(cohort, c2="labelled", c3=None)
    scores = leave_one_out(three, model, OPTIONS, seed=SEED, scratch=tmp_path)
    assert scores == leave_one_out(three, model, OPTIONS, seed=SEED)
    for case in ("c0", "c1", "c2"):
        assert 1 <= len(list((tmp_path / case).rglob("level0.bin"))) <= 2


def test_leave_one_out_of_a_single_labelled_case_is_refused_with_the_reason(cohort, model):
    with pytest.raises(CohortError, match="at least two labelled cases"):
        leave_one_out(changed(cohort, c1=None), model, OPTIONS, seed=SEED)


def test_an_estimate_over_few_cases_comes_with_a_warning():
    assert "too few" in reliability(2)
    assert "rough" in reliability(4)
    assert reliability(5) == ""


def test_a_labelled_case_that_the_others_say_nothing_about_is_named():
    def scores(case, dice):
        numbers = [field.name for field in fields(ClassScores) if field.type in (float, "float")]
        found = ClassScores("heart", 1, **dict.fromkeys(numbers, 1.0) | {"dice": dice}, empty="none")
        return CaseScores(case, (found,))

    first, second = advice([scores("a", 0.7), scores("b", 0.8), scores("c", 0.0), scores("d", 0.75)])
    assert "rough" in first
    assert second.startswith("Labelled scan 'c' cannot be segmented from the others (Dice 0.00)")
    assert advice([scores(case, 0.8) for case in "abcde"]) == []

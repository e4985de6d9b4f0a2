"""The engine against the stock video predictor: same weights, same frames, same probabilities."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from SSLSegLib.errors import WeightsError
from SSLSegLib.tffs.engine import TffsEngine
from SSLSegLib.tffs.ensemble import ProbabilitySums
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.place import place_prompts
from SSLSegLib.tffs.positions import insertion_positions
from SSLSegLib.tffs.reference import stock_run, unrounded_memories

IN_PLANE = (33, 47)
ROUNDED, UNROUNDED = 1e-4, 2e-5


def run(pair, unlabelled, labelled, positions, in_plane=IN_PLANE, mask=None, place=None, **options):
    """Mean probability over the positions by the engine, as a tensor."""
    engine = TffsEngine(pair.model, TffsOptions(**options))
    template = engine.template(engine.encode(labelled.frames), labelled.mask if mask is None else mask, in_plane)
    sums = ProbabilitySums(len(unlabelled.frames), in_plane)
    engine.propagate(engine.encode(unlabelled.frames), template, positions, in_plane, sums, place=place)
    return torch.from_numpy(sums.mean)


def stock(pair, unlabelled, labelled, positions, in_plane=IN_PLANE, mask=None):
    """The same by the stock predictor."""
    mask = labelled.mask if mask is None else mask
    runs = [stock_run(pair.predictor, unlabelled.frames, labelled.frames, mask, k, in_plane) for k in positions]
    return torch.stack(runs).mean(dim=0)


def difference(a, b) -> float:
    """Largest |dp|, infinite where anything is NaN."""
    return (a - b).abs().nan_to_num(nan=torch.inf).max().item()


# Empty labelled slices at the start, at the end, in between and a longer gap; nine slices, so 6 memories get forgotten.
BLOCKS = {
    "all prompted": (5, ()),
    "empty ends": (7, (0, 1, 6)),
    "a gap": (8, (2, 3, 4)),
    "ends and gap": (9, (0, 3, 8)),
    "one prompt, first": (4, (1, 2, 3)),
    "one prompt, last": (4, (0, 1, 2)),
    "single slice": (1, ()),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_equals_the_stock_predictor_wherever_the_volume_is_inserted(pair, scan, block):
    slices, empty = BLOCKS[block]
    unlabelled, labelled = scan(9, seed=1), scan(slices, empty, seed=2)
    for position in (0, 4, 8):
        with unrounded_memories():
            expected = stock(pair, unlabelled, labelled, [position])
        result = run(pair, unlabelled, labelled, [position], round_memories=False)
        assert difference(result, expected) < UNROUNDED


@pytest.mark.parametrize("position", [0, 4, 8])
def test_equals_the_stock_predictor_with_memories_stored_in_bfloat16(pair, scan, position):
    unlabelled, labelled = scan(9, seed=1), scan(9, (0, 3, 8), seed=2)
    expected = stock(pair, unlabelled, labelled, [position])
    assert difference(run(pair, unlabelled, labelled, [position]), expected) < ROUNDED
    unrounded = run(pair, unlabelled, labelled, [position], round_memories=False)
    assert difference(unrounded, expected) > ROUNDED


@pytest.mark.parametrize("attention", ["sdpa", "tiled"])
def test_differs_by_rounding_only_when_memories_are_not_rounded(pair, scan, attention):
    unlabelled, labelled = scan(18, seed=3), scan(9, (0, 3, 8), seed=4)
    with unrounded_memories():
        expected = stock(pair, unlabelled, labelled, [7])
    result = run(pair, unlabelled, labelled, [7], round_memories=False, attention=attention)
    assert difference(result, expected) < UNROUNDED


@pytest.mark.parametrize("position", [0, 4, 8])
def test_told_where_the_class_lies_it_equals_the_stock_predictor_refining_a_rough_mask(pair, scan, position):
    unlabelled, labelled = scan(9, seed=1), scan(9, (0, 3, 8), seed=2)
    generator = torch.Generator().manual_seed(3)
    place = F.avg_pool2d(torch.rand(9, *IN_PLANE, generator=generator), 9, 1, 4)
    rough = torch.full((18, 1, 32, 32), torch.tensor(0.0025).logit().item())  # no class on unprompted labelled slices
    rough[:position] = place_prompts(place[:position], 32)
    rough[position + 9 :] = place_prompts(place[position:], 32)
    with unrounded_memories():
        expected = stock_run(
            pair.predictor, unlabelled.frames, labelled.frames, labelled.mask, position, IN_PLANE, rough
        )
    result = run(pair, unlabelled, labelled, [position], place=place.numpy(), round_memories=False)
    assert difference(result, expected) < UNROUNDED
    assert difference(result, run(pair, unlabelled, labelled, [position], round_memories=False)) > 0.01


def test_a_prior_of_another_size_is_refused(pair, scan):
    with pytest.raises(ValueError, match="prior is of"):
        run(pair, scan(4, seed=1), scan(3, seed=2), [1], place=np.zeros((4, 5, 5), np.float32))


def test_the_chains_of_these_tests_do_depend_on_position_and_mask(pair, scan):
    """Otherwise every equality here would be cheap."""
    unlabelled, labelled = scan(9, seed=1), scan(9, (0, 3, 8), seed=2)
    one = run(pair, unlabelled, labelled, [2])
    assert difference(run(pair, unlabelled, labelled, [6]), one) > 0.02
    assert difference(run(pair, unlabelled, labelled, [2], mask=labelled.mask.flip(2)), one) > 0.01
    assert one.std() > 0.1


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_fewer_than_sixteen_frames_and_fewer_slices_than_insertions_are_as_in_stock(pair, scan, slices):
    """The time scale of pointers shrinks with short videos; every position is used once."""
    unlabelled, labelled = scan(slices, seed=5), scan(4, (1,), seed=6)
    positions = insertion_positions(0, "a", "b", "c", slices, 5)
    expected = stock(pair, unlabelled, labelled, positions)
    assert difference(run(pair, unlabelled, labelled, positions), expected) < ROUNDED


def test_one_template_serves_volumes_of_different_length(pair, scan):
    """The history of empty slices depends on the number of frames below sixteen; it must not leak between volumes."""
    labelled = scan(6, (0, 2, 5), seed=7)
    engine = TffsEngine(pair.model, TffsOptions(round_memories=False))
    template = engine.template(engine.encode(labelled.frames), labelled.mask, IN_PLANE)
    for slices in (3, 12, 5):
        unlabelled = scan(slices, seed=slices)
        sums = ProbabilitySums(slices, IN_PLANE)
        engine.propagate(engine.encode(unlabelled.frames), template, [1], IN_PLANE, sums)
        with unrounded_memories():
            expected = stock(pair, unlabelled, labelled, [1])
        assert difference(torch.from_numpy(sums.mean), expected) < UNROUNDED


def test_all_insertions_together_equal_the_mean_of_stock_runs(pair, scan):
    unlabelled, labelled = scan(10, seed=8), scan(6, (0, 5), seed=9)
    positions = [0, 3, 4, 9]
    assert (
        difference(run(pair, unlabelled, labelled, positions), stock(pair, unlabelled, labelled, positions)) < ROUNDED
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_size_changes_rounding_only(pair, scan, batch):
    unlabelled, labelled = scan(10, seed=8), scan(6, (0, 5), seed=9)
    together = run(pair, unlabelled, labelled, [0, 3, 4, 9], round_memories=False)
    apart = run(pair, unlabelled, labelled, [0, 3, 4, 9], round_memories=False, batch=batch)
    assert difference(together, apart) < UNROUNDED


def test_two_classes_are_two_independent_states(pair, scan):
    unlabelled, labelled = scan(7, seed=1), scan(6, (0,), seed=2)
    for mask in (labelled.mask, labelled.mask.roll((1, 9), dims=(0, 1))):
        expected = stock(pair, unlabelled, labelled, [3], mask=mask)
        assert difference(run(pair, unlabelled, labelled, [3], mask=mask), expected) < ROUNDED


def test_a_mask_that_vanishes_at_the_frame_size_still_prompts_no_object(pair, scan):
    """One pixel of 400 x 360 survives the resize to a fine in-plane grid, but not the one to 128 x 128."""
    unlabelled, labelled = scan(5, seed=1), scan(4, seed=2)
    mask = torch.zeros(4, 400, 360, dtype=torch.bool)
    mask[:, 100:300, 100:250] = True
    mask[1] = False
    mask[1, 200, 200] = True
    in_plane = (400, 360)
    expected = stock(pair, unlabelled, labelled, [2], in_plane, mask)
    assert difference(run(pair, unlabelled, labelled, [2], in_plane, mask), expected) < ROUNDED


def test_frames_at_the_models_own_size_are_not_resized(pair, scan):
    unlabelled, labelled = scan(4, seed=1), scan(3, seed=2)
    in_plane = (128, 128)
    expected = stock(pair, unlabelled, labelled, [2], in_plane)
    assert difference(run(pair, unlabelled, labelled, [2], in_plane), expected) < ROUNDED


def test_the_template_depends_on_the_in_plane_size(pair, scan):
    unlabelled, labelled = scan(5, seed=1), scan(4, seed=2)
    for in_plane in ((20, 17), (61, 90)):
        expected = stock(pair, unlabelled, labelled, [2], in_plane)
        assert difference(run(pair, unlabelled, labelled, [2], in_plane), expected) < ROUNDED


CONFIGURATIONS = {
    "single mask tracking": {"multimask_output_for_tracking": False},
    "single mask pointer": {"use_multimask_token_for_obj_ptr": False},
    "no pointers": {"use_obj_ptrs_in_encoder": False, "pred_obj_scores": False, "fixed_no_obj_ptr": False},
    "pointers from the future": {"only_obj_ptrs_in_the_past_for_eval": False},
    "unsigned pointers": {"use_signed_tpos_enc_to_obj_ptrs": False, "only_obj_ptrs_in_the_past_for_eval": False},
    "memory as wide as features": {"memory": 64},
    "three memories": {"num_maskmem": 4},
    "wider, deeper": {"hidden": 96, "memory": 16, "layers": 3},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_equals_stock_in_other_configurations(other_pairs, scan, name):
    pair = other_pairs(**CONFIGURATIONS[name])
    unlabelled, labelled = scan(8, seed=1), scan(6, (0, 2, 5), seed=2)
    with unrounded_memories():
        expected = stock(pair, unlabelled, labelled, [3])
    assert difference(run(pair, unlabelled, labelled, [3], round_memories=False), expected) < UNROUNDED


def test_equals_stock_when_the_object_comes_and_goes(other_pairs, scan):
    """Object scores of both signs: absent frames have no mask, a learned pointer and a marked memory."""
    pair = other_pairs(seed=1)
    unlabelled, labelled = scan(12, seed=1), scan(6, (0, 2, 5), seed=2)
    heads = [module.sam_mask_decoder.pred_obj_score_head for module in (pair.model, pair.predictor)]
    scores = []
    hook = heads[1].register_forward_hook(lambda module, args, score: scores.append(score.item()))
    stock(pair, unlabelled, labelled, [5])
    hook.remove()
    with torch.no_grad():
        for head in heads:
            head.layers[-1].bias.sub_(float(np.median(scores)))
    with unrounded_memories():
        expected = stock(pair, unlabelled, labelled, [5])
    present = expected.flatten(1).amax(dim=1) > 0
    assert 0 < present.sum() < len(present)
    assert difference(run(pair, unlabelled, labelled, [5], round_memories=False), expected) < UNROUNDED


def test_every_slice_is_encoded_exactly_once_per_job(pair, scan):
    calls = []
    hook = pair.model.image_encoder.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[0]))
    try:
        engine = TffsEngine(pair.model)
        unlabelled, labelled = [scan(5, seed=s) for s in (1, 2)], [scan(4, (0,), seed=s) for s in (3, 4, 5)]
        blocks = [(engine.encode(scan.frames), scan.mask) for scan in labelled]
        templates = [engine.template(features, mask, IN_PLANE) for features, mask in blocks for _ in ("a", "b")]
        for volume in unlabelled:
            features, sums = engine.encode(volume.frames), ProbabilitySums(5, IN_PLANE)
            for template in templates:
                engine.propagate(features, template, [0, 2, 4], IN_PLANE, sums)
            assert sums.count == 3 * len(templates)
    finally:
        hook.remove()
    assert sum(calls) == engine.counts.encoded == 2 * 5 + 3 * 4


def test_empty_slices_of_the_block_are_tracked_once_not_once_per_insertion(pair, scan):
    engine = TffsEngine(pair.model)
    labelled, unlabelled = scan(6, (0, 2, 5), seed=1), scan(20, seed=2)
    template = engine.template(engine.encode(labelled.frames), labelled.mask, IN_PLANE)
    features = engine.encode(unlabelled.frames)
    for _ in range(2):
        engine.propagate(features, template, [3, 9], IN_PLANE, ProbabilitySums(20, IN_PLANE))
    # Forward passes slices 2 and 5 of the block, backward 2 and 0.
    assert engine.counts.tracked == 2 * 2 * 20 + 4


def test_progress_counts_tracked_frames(pair, scan):
    told = []
    engine = TffsEngine(pair.model)
    labelled, unlabelled = scan(3, seed=1), scan(4, seed=2)
    features = engine.encode(unlabelled.frames, lambda event, **fields: told.append((event, fields)))
    assert told[-1] == ("progress", {"stage": "encode", "done": 4, "total": 4})
    template = engine.template(engine.encode(labelled.frames), labelled.mask, IN_PLANE)
    told.clear()
    engine.propagate(
        features, template, [1, 3], IN_PLANE, ProbabilitySums(4, IN_PLANE), lambda event, **fields: told.append(fields)
    )
    assert told[-1] == {"stage": "propagate", "done": 8, "total": 8}
    assert [fields["done"] for fields in told] == sorted(fields["done"] for fields in told)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["exact", "fast", "official"])
def test_small_frames_are_computed_side_by_side_with_the_same_bits(pair, scan, threads, precision):
    unlabelled, labelled = scan(9, seed=1), scan(7, (0, 1, 6), seed=2)
    found = []
    for number in (1, 2):
        threads(number)
        found.append(run(pair, unlabelled, labelled, [0, 4, 4, 8], precision=precision))
        assert torch.get_num_threads() == number
    assert torch.equal(*found)


@pytest.mark.parametrize("small", [True, False])
def test_both_directions_step_at_once_where_frames_are_small_and_progress_is_told_here(
    pair, scan, threads, small, monkeypatch
):
    threads(2)
    if not small:
        monkeypatch.setattr("SSLSegLib.tffs.engine._SMALL_FRAME", pair.model.image_size - 1)
    engine, here = TffsEngine(pair.model), threading.current_thread()
    meeting, stepped, step = threading.Barrier(2, timeout=30), [], engine._tracker.step

    def seen(chains, *args, **options):
        if small:
            meeting.wait()  # for the other direction
        stepped.append((threading.current_thread() is here, torch.get_num_threads()))
        return step(chains, *args, **options)

    monkeypatch.setattr(engine._tracker, "step", seen)
    told = []
    labelled, unlabelled = scan(3, seed=1), scan(4, seed=2)
    template = engine.template(engine.encode(labelled.frames), labelled.mask, IN_PLANE)
    features, sums = engine.encode(unlabelled.frames), ProbabilitySums(4, IN_PLANE)
    engine.propagate(
        features, template, [2], IN_PLANE, sums, lambda *_, **__: told.append(threading.current_thread() is here)
    )
    assert stepped == [(not small, 1 if small else 2)] * 4
    assert told == [True] * 4
    assert torch.get_num_threads() == 2


def test_nothing_is_added_when_a_run_is_interrupted(pair, scan):
    class StopError(Exception):
        pass

    def stop(event, done=0, **_):
        if done >= 3:
            raise StopError

    engine = TffsEngine(pair.model)
    labelled, unlabelled = scan(3, seed=1), scan(4, seed=2)
    template = engine.template(engine.encode(labelled.frames), labelled.mask, IN_PLANE)
    sums = ProbabilitySums(4, IN_PLANE)
    with pytest.raises(StopError):
        engine.propagate(engine.encode(unlabelled.frames), template, [1], IN_PLANE, sums, stop)
    assert sums.count == 0
    assert not sums.total.any()


def test_an_empty_class_gives_no_template(pair, scan):
    engine = TffsEngine(pair.model)
    labelled = scan(3, seed=1)
    assert engine.template(engine.encode(labelled.frames), torch.zeros(3, 40, 36), IN_PLANE) is None


def test_wrong_sizes_are_named(pair, scan):
    engine = TffsEngine(pair.model)
    labelled = scan(3, seed=1)
    features = engine.encode(labelled.frames)
    with pytest.raises(ValueError, match="2 slices"):
        engine.template(features, labelled.mask[:2], IN_PLANE)
    template = engine.template(features, labelled.mask, IN_PLANE)
    with pytest.raises(ValueError, match="made for"):
        engine.propagate(features, template, [0], (5, 5), ProbabilitySums(3, (5, 5)))
    with pytest.raises(ValueError, match="sums are for"):
        engine.propagate(features, template, [0], IN_PLANE, ProbabilitySums(4, IN_PLANE))
    with pytest.raises(ValueError, match="positions"):
        engine.propagate(features, template, [3], IN_PLANE, ProbabilitySums(3, IN_PLANE))


def test_a_model_with_other_tracking_semantics_is_refused(other_pairs):
    with pytest.raises(WeightsError, match="max_cond_frames_in_attn"):
        TffsEngine(other_pairs(max_cond_frames_in_attn=4).model)


def test_features_kept_in_files_give_the_same_probabilities(pair, scan, tmp_path):
    unlabelled, labelled = scan(5, seed=1), scan(4, seed=2)
    engine = TffsEngine(pair.model)
    template = engine.template(engine.encode(labelled.frames, folder=tmp_path), labelled.mask, IN_PLANE)
    sums = ProbabilitySums(5, IN_PLANE)
    engine.propagate(engine.encode(unlabelled.frames), template, [2], IN_PLANE, sums)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["level0.bin", "level1.bin", "level2.bin"]
    assert difference(torch.from_numpy(sums.mean), run(pair, unlabelled, labelled, [2])) == 0


def test_prompting_only_some_slices_is_an_option(pair, scan):
    engine = TffsEngine(pair.model, TffsOptions(max_conditioning_slices=3))
    labelled = scan(8, (0,), seed=1)
    template = engine.template(engine.encode(labelled.frames), labelled.mask, IN_PLANE)
    assert template.prompted == [1, 4, 7]
    assert template.left_out == {2, 3, 5, 6}


@pytest.mark.parametrize(("precision", "attention"), [("fast", "sdpa"), ("fast", "tiled"), ("official", "auto")])
def test_lower_precision_stays_near_the_exact_result(pair, scan, precision, attention):
    unlabelled, labelled = scan(9, seed=1), scan(7, (0, 3), seed=2)
    exact = run(pair, unlabelled, labelled, [1, 5])
    result = run(pair, unlabelled, labelled, [1, 5], precision=precision, attention=attention)
    assert torch.get_float32_matmul_precision() == "highest"
    bound, mean_bound = {"fast": (3e-2, 2e-3), "official": (2e-1, 1e-2)}[precision]
    assert 0 < difference(result, exact) < bound
    assert (result - exact).abs().mean() < mean_bound

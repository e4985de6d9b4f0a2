"""The training schedules compute what the stock model computes."""

import pytest
import torch

from SSLSegLib.checkpoint.answers import spoiled
from SSLSegLib.checkpoint.attention import attend
from SSLSegLib.checkpoint.configuration import small_configuration
from SSLSegLib.checkpoint.samples import Batch
from SSLSegLib.checkpoint.teaching import Teacher
from SSLSegLib.tffs.place import place_prompts
from SSLSegLib.weights.sam2_model import build_sam2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_sam2(small_configuration(image_size=64))
    # Random memory and pointer embeddings, so that a wrong slot or a forgotten one shows.
    for parameter in (model.maskmem_tpos_enc, model.no_obj_ptr, model.no_obj_embed_spatial):
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].weight, std=3.0)
    return model


@pytest.fixture
def batch():
    torch.manual_seed(1)
    masks = torch.zeros(2, 1, 11, 64, 64, dtype=torch.bool)
    masks[0, :, :2, 8:32] = True  # bands: shrinking and growing leaves them as they are
    # The third labelled slice has no target: it is tracked, not prompted.
    masks[1, :, :2, :, 4:24] = True
    distance = torch.tensor([[3.0, 2.0, 1.0]]).expand(2, -1)
    structures = torch.zeros(2, 11, 16, 16, dtype=torch.uint8)
    place = torch.rand(2, 1, 8, 16, 16)
    return Batch(torch.randn(2, 11, 3, 64, 64), masks, distance, structures, place, labelled=3)


def _stock(model, frames, masks, labelled, place, *, empty_tail):
    """The stock ``track_step`` over one video: prompted slices, then every other slice in turn.

    ``place``: of the chain's slices, given as stock refinement gives the mask of an earlier click.
    """
    nothing = {"point_coords": torch.zeros(1, 1, 2), "point_labels": -torch.ones(1, 1, dtype=torch.int32)}
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    results = []
    for index in range(len(frames)):
        backbone = model.forward_image(frames[index : index + 1])
        _, features, positions, sizes = model._prepare_backbone_features(backbone)
        prompt = masks[index][None, None] if index < labelled and masks[index].any() else None
        if index in empty_tail:  # told to be empty, as a tracked slice that the model finds empty
            quarter = model.image_size
            high = torch.full((1, 1, quarter, quarter), -1024.0)
            memory, where = model._encode_new_memory(features, sizes, high, torch.tensor([[-1.0]]), False)
            out = {"maskmem_features": memory, "maskmem_pos_enc": where, "obj_ptr": model.no_obj_ptr.clone()}
            outputs["non_cond_frame_outputs"][index] = out
            continue
        out = model.track_step(
            frame_idx=index,
            is_init_cond_frame=prompt is not None,
            current_vision_feats=features,
            current_vision_pos_embeds=positions,
            feat_sizes=sizes,
            point_inputs=None if prompt is not None or place is None else nothing,
            mask_inputs=None if prompt is None else prompt.float(),
            prev_sam_mask_logits=None
            if prompt is not None or place is None
            else place_prompts(place[index - labelled : index - labelled + 1], 16),
            output_dict=outputs,
            num_frames=40,
        )
        outputs["cond_frame_outputs" if prompt is not None else "non_cond_frame_outputs"][index] = out
        if prompt is None:
            results.append((out["pred_masks"][0, 0], out["object_score_logits"][0, 0]))
    return results


@torch.no_grad()
@pytest.mark.parametrize(("unplaced", "answered"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_chain_equals_stock_track_step_slice_by_slice(model, batch, unplaced, answered):
    """Told the place, told nothing, and told an earlier answer."""
    teacher = Teacher(model, unplaced=unplaced, answered=answered)
    decoded, _ = teacher.chain(batch)
    for group in range(2):
        place = None if unplaced else batch.place[group, 0]
        if answered:
            place = teacher.place[group, :, 0].sigmoid()
            assert (place - batch.place[group, 0]).abs().max() > 0.1
        expected = _stock(model, batch.frames[group], batch.masks[group, 0], 3, place, empty_tail={2})
        assert len(expected) == 8
        for index, (logits, score) in enumerate(expected):
            assert torch.allclose(decoded.score[group, index], score, atol=1e-4)
            if score > 0:
                assert torch.allclose(decoded.logits[group, index], logits, atol=1e-4)


@torch.no_grad()
def test_what_a_chain_finds_depends_on_the_place_that_it_is_told(model, batch):
    told, untold = Teacher(model).chain(batch)[0], Teacher(model, unplaced=1.0).chain(batch)[0]
    assert not torch.allclose(told.logits, untold.logits, atol=1e-2)


def test_a_spoiled_answer_is_mostly_the_truth_with_pieces_missing_and_false_ones_added():
    torch.manual_seed(3)
    masks = torch.zeros(200, 5, 64, 64, dtype=torch.bool)
    masks[:190, :, 20:44, 16:40] = True
    answers = spoiled(masks, 16)
    assert answers.shape == (200, 5, 16, 16)
    assert 0 <= answers.min() <= answers.max() <= 1
    assert answers[190:].max() == 0, "nothing is found of what is not there"
    truth = torch.nn.functional.avg_pool2d(masks[:190].float(), 4) > 0.5
    found = answers[:190] > 0.5
    dice = 2 * (found & truth).flatten(1).sum(1) / (found.flatten(1).sum(1) + truth.flatten(1).sum(1))
    assert 0.5 < dice.mean() < 0.9
    assert dice.min() < 0.3 < dice.max()
    assert (found & ~truth).flatten(1).any(1).float().mean() > 0.3
    assert (~found & truth).flatten(1).any(1).float().mean() > 0.5


@torch.no_grad()
def test_earlier_answers_are_told_to_their_share_of_the_targets_only(model, batch):
    torch.manual_seed(0)
    told = [Teacher(model, answered=0.4) for _ in range(30)]
    for teacher in told:
        teacher.chain(batch)
    prior = place_prompts(batch.place.flatten(0, 2), 16).view_as(told[0].place)
    same = torch.stack([torch.isclose(teacher.place, prior).flatten(1).all(1) for teacher in told])
    assert 0.4 < same.float().mean() < 0.8


@torch.no_grad()
def test_as_many_passes_as_slices_equal_the_chain(model, batch):
    chain, _ = Teacher(model).chain(batch)
    passes, _ = Teacher(model).passes(batch, 9, drop=0.0)
    assert torch.allclose(passes[-1].logits, chain.logits, atol=1e-4)
    assert not torch.allclose(passes[0].logits, chain.logits, atol=1e-2)


@torch.no_grad()
def test_shared_and_hidden_memory_attention_equals_the_stock_module(model):
    torch.manual_seed(2)
    tokens, shared, spatial, pointers = 16, 3, 2, 4
    current, position = torch.randn(2, 3, tokens, 96), torch.randn(tokens, 96)
    common, common_place = torch.randn(2, 2, shared * tokens, 32)
    common, common_place = common.expand(2, -1, -1), common_place.expand(2, -1, -1)
    local, place = torch.randn(2, 2, 3, spatial * tokens + pointers, 32)
    visible = torch.ones(2, 3, (shared + spatial) * tokens + pointers, dtype=torch.bool)
    visible[:, :, tokens : 2 * tokens] = False  # the second shared map is hidden
    out, attended = attend(
        model.memory_attention, current, position, common, common_place, local, place, pointers, visible
    )
    keep = torch.cat([torch.arange(tokens), torch.arange(2 * tokens, (shared + spatial) * tokens + pointers)])
    for group in range(2):
        for index in range(3):
            memory = torch.cat([common[group], local[group, index]])[keep][:, None]
            place_of = torch.cat([common_place[group], place[group, index]])[keep][:, None]
            expected = model.memory_attention(
                curr=current[group, index][:, None],
                curr_pos=position[:, None],
                memory=memory,
                memory_pos=place_of,
                num_obj_ptr_tokens=pointers,
            )
            assert torch.allclose(out[group, index], expected[:, 0], atol=1e-5)
    assert len(attended) == 2
    assert attended[0][..., tokens : 2 * tokens].abs().max() == 0  # nobody looks at what is hidden
    assert (attended[0].sum(-1) < 1).all()

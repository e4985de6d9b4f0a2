"""SAM2's side against the stock video predictor and against SAM2's heads written out."""

import copy

import numpy as np
import pytest
import torch
from tiny_vessa import SAM2, blobs, pictures, tiny_sam2

from SSLSegLib.tffs.reference import stock_state, unrounded_memories
from SSLSegLib.vessa.pictures import masks_to_frames, pictures_to_frames
from SSLSegLib.vessa.segmenter import ABSENT, TemplateSegmenter
from SSLSegLib.weights.sam2_model import build_sam2

MULTIMASK = ("multimask_output_in_sam", "multimask_output_for_tracking")
"""Off in the bundled architecture, and so in the tiny one; on in SAM2.1 and MedSAM2."""


@pytest.fixture(scope="module")
def sam2():
    return tiny_sam2()


def frames_and_masks(count=2):
    return pictures_to_frames(pictures(count), 64), masks_to_frames(blobs(count), 64)


def predictor_like(sam2):
    """The stock predictor with the same weights."""
    predictor = build_sam2(SAM2, predictor=True)
    predictor.load_state_dict(sam2.state_dict())
    for name in MULTIMASK:
        setattr(predictor, name, getattr(sam2, name))
    return predictor


def stock_answer(sam2, frames, mask, points=None):
    """Frame 1 of a stock video of 16 frames whose frame 0 has a mask prompt; mask logits at 4h x 4w."""
    predictor = predictor_like(sam2)
    video = torch.cat([frames, frames[-1:].expand(14, -1, -1, -1)])
    state = stock_state(predictor, video, (64, 64))
    predictor.add_new_mask(state, 0, 1, mask[0, 0] > 0.5)
    predictor.propagate_in_video_preflight(state)
    output, _ = predictor._run_single_frame_inference(
        inference_state=state,
        output_dict=state["output_dict_per_obj"][0],
        frame_idx=1,
        batch_size=1,
        is_init_cond_frame=False,
        point_inputs=points,
        mask_inputs=None,
        reverse=False,
        run_mem_encoder=False,
    )
    return output["pred_masks"]


@torch.no_grad()
def our_answer(segmenter, frames, drawn, **more):
    levels = segmenter.encode(frames)
    template, target = tuple(each[:1] for each in levels), tuple(each[1:2] for each in levels)
    memory = segmenter.remember(template, drawn[:1])
    return segmenter.decode(segmenter.attend(target, memory), target[:-1], **more)


def test_template_and_target_are_what_the_stock_predictor_makes_of_two_frames(sam2):
    frames, masks = frames_and_masks()
    ours = our_answer(TemplateSegmenter(sam2, single_mask=False), frames, masks).logits
    with unrounded_memories():
        stock = stock_answer(sam2, frames, masks[:1])
    assert stock.std() > 0.1
    torch.testing.assert_close(ours, stock, atol=2e-5, rtol=1e-4)


def test_the_prompt_of_the_language_model_is_one_more_sparse_token(sam2):
    frames, _ = frames_and_masks()
    segmenter, prompt = TemplateSegmenter(sam2), torch.randn(1, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        levels = tuple(each[:1] for each in segmenter.encode(frames))
        attended = segmenter.attend(levels, None)
        found = segmenter.decode(attended, levels[:-1], prompt).logits
        encoder = sam2.sam_prompt_encoder
        # Written out: SAM2's two tokens for "no point", then h_seg; no dense prompt.
        nothing = encoder.not_a_point_embed.weight.expand(1, 2, -1)
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, 4, 4)
        assert torch.equal(attended, levels[-1] + sam2.no_mem_embed.reshape(1, -1, 1, 1))
        masks, *_ = sam2.sam_mask_decoder.predict_masks(
            image_embeddings=attended,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([nothing, prompt[:, None]], 1),
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(levels[:-1]),
        )
    torch.testing.assert_close(found, masks[:, :1], atol=1e-5, rtol=1e-4)
    assert (found - segmenter.decode(attended, levels[:-1]).logits).abs().max() > 1e-2


def test_pairs_in_a_batch_do_not_see_each_other(sam2):
    segmenter = TemplateSegmenter(sam2)
    frames, masks = pictures_to_frames(pictures(4), 64), masks_to_frames(blobs(4), 64)
    with torch.no_grad():
        templates, targets = segmenter.encode(frames[:2]), segmenter.encode(frames[2:])
        together = segmenter.decode(segmenter.attend(targets, segmenter.remember(templates, masks[:2])), targets[:-1])
        for index in range(2):
            alone = tuple(each[index : index + 1] for each in targets)
            memory = segmenter.remember(tuple(each[index : index + 1] for each in templates), masks[index : index + 1])
            one = segmenter.decode(segmenter.attend(alone, memory), alone[:-1])
            torch.testing.assert_close(together.logits[index : index + 1], one.logits, atol=1e-4, rtol=1e-3)


def test_an_absent_object_empties_the_mask_unless_the_gate_is_off(sam2):
    frames, masks = frames_and_masks()
    head = sam2.sam_mask_decoder.pred_obj_score_head.layers[-1]
    before = head.bias.detach().clone()
    try:
        with torch.no_grad():
            head.bias.fill_(-200.0)
        gated = our_answer(TemplateSegmenter(sam2), frames, masks)
        assert gated.presence.item() < 0
        assert (gated.logits == ABSENT).all()
        assert (our_answer(TemplateSegmenter(sam2), frames, masks, gate=False).logits > ABSENT).all()
    finally:
        with torch.no_grad():
            head.bias.copy_(before)


def test_points_boxes_and_mask_prompts_each_change_the_answer(sam2):
    frames, masks = frames_and_masks()
    segmenter = TemplateSegmenter(sam2)
    box = {"point_coords": torch.tensor([[[10.0, 12.0], [40.0, 50.0]]]), "point_labels": torch.tensor([[2, 3]])}
    dense = torch.where(torch.arange(16).reshape(1, 1, 16, 1) > 8, 8.0, -8.0).expand(1, 1, 16, 16)
    answers = [
        our_answer(segmenter, frames, masks, **prompts).logits
        for prompts in ({}, {"points": box}, {"masks": dense}, {"points": box, "masks": dense})
    ]
    for index, one in enumerate(answers):
        for other in answers[index + 1 :]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("prompts", [0, 1, 2])
def test_with_weights_not_trained_here_the_mask_is_the_one_that_sam2_itself_takes(sam2, prompts):
    """The best of three where nothing or one point prompts, the only one where a box does."""
    sam2 = copy.deepcopy(sam2)
    for name in MULTIMASK:
        setattr(sam2, name, True)
    frames, masks = frames_and_masks()
    points = None
    if prompts:
        corners = torch.tensor([[[10.0, 12.0], [40.0, 50.0]]])
        kinds = torch.tensor([[2, 3]] if prompts == 2 else [[1]], dtype=torch.int32)
        points = {"point_coords": corners[:, :prompts], "point_labels": kinds}
    with unrounded_memories():
        stock = stock_answer(sam2, frames, masks[:1], points)
    ours = our_answer(TemplateSegmenter(sam2, single_mask=False), frames, masks, points=points).logits
    torch.testing.assert_close(ours, stock, atol=2e-5, rtol=1e-4)


def test_a_thin_mask_does_not_vanish_on_the_way_to_the_frame():
    thin = np.zeros((200, 200), bool)
    thin[77, 20:60] = True
    assert masks_to_frames([thin], 64).sum() >= 12
    assert masks_to_frames([np.zeros((200, 200), bool)], 64).sum() == 0

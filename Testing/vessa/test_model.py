"""The whole model on a real, tiny Qwen3-VL and a real, tiny SAM2."""

import sys

import numpy as np
import pytest
import torch
from tiny_vessa import SAM2, blobs, pictures, tiny_vessa
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from SSLSegLib.cases.classes import Code, SegmentClass, Terminology
from SSLSegLib.errors import WeightsError
from SSLSegLib.vessa.configuration import LanguageConfiguration, VessaConfiguration, tiny_language
from SSLSegLib.vessa.language_loading import load_language
from SSLSegLib.vessa.losses import vessa_loss
from SSLSegLib.vessa.pictures import masks_to_frames, overlay, square
from SSLSegLib.vessa.prompts import ANSWERS, FIXED_ANSWER, INSTRUCTIONS, SEG_TOKEN, class_phrase, instruction


@pytest.fixture(scope="module")
def vessa():
    return tiny_vessa()


def example(vessa, count=2, *, answers=None, seed=0):
    targets, templates, masks = pictures(count, seed=seed), pictures(count, seed=seed + 50), blobs(count, seed=seed)
    asked = [instruction(number) for number in range(count)]
    return vessa.pairs(targets, templates, masks, asked, answers or [FIXED_ANSWER] * count)


def test_every_answer_holds_the_token_once():
    assert all(each.count(SEG_TOKEN) == 1 for each in ANSWERS)
    assert not any(SEG_TOKEN in each for each in INSTRUCTIONS)


def test_the_class_is_named_only_on_request():
    assert "liver" not in instruction(0)
    assert instruction(0, "liver").endswith("The structure is: liver.")


def test_a_class_is_called_by_its_terminology_and_without_one_by_its_name():
    kidney, right = (
        Code(scheme="SCT", value="64033007", meaning="Kidney"),
        Code(scheme="SCT", value="1", meaning="Right"),
    )
    coded = SegmentClass(value=1, name="K_r", terminology=Terminology(type=kidney, modifier=right), color=None)
    assert class_phrase(coded) == "right kidney"
    assert class_phrase(SegmentClass(value=1, name="Left_atrium", color=None)) == "left atrium"
    assert SEG_TOKEN not in class_phrase(SegmentClass(value=1, name=f"a {SEG_TOKEN} b", color=None))


def test_the_template_is_drawn_over_in_half_transparent_green():
    picture = np.full((2, 2, 3), 100, np.uint8)
    drawn = overlay(picture, np.array([[True, False], [False, False]]))
    assert drawn[0, 0].tolist() == [50, 178, 50]
    assert drawn[0, 1].tolist() == [100, 100, 100]


def test_the_dialogue_has_qwens_layout_with_the_target_first(vessa):
    prompter = vessa.language.prompter
    targets, templates, masks = pictures(1), pictures(1, seed=9), blobs(1)
    inputs = prompter(targets, templates, masks, ["Segment."], ["It is <SEG>."])
    tokens = prompter.tokenizer
    image = "<|vision_start|>" + 4 * "<|image_pad|>" + "<|vision_end|>"  # 64 pixels: 2 x 2 visual tokens
    expected = f"<|im_start|>user\n{image}{image}Segment.<|im_end|>\n<|im_start|>assistant\nIt is <SEG>.<|im_end|>\n"
    assert tokens.decode(inputs.input_ids[0]) == expected
    assert inputs.mm_token_type_ids.sum() == 8
    assert inputs.image_grid_thw.tolist() == [[1, 4, 4], [1, 4, 4]]
    half = (square(targets[0], 64).astype(np.float32) / 255 - 0.5) / 0.5
    # The first value of the first patch is the target's first pixel, the 17th patch is the overlay's.
    assert inputs.pixel_values[0, 0].item() == pytest.approx(half[0, 0, 0], abs=1e-6)
    drawn = (square(overlay(templates[0], masks[0]), 64).astype(np.float32) / 255 - 0.5) / 0.5
    assert inputs.pixel_values[16, 0].item() == pytest.approx(drawn[0, 0, 0], abs=1e-6)


def test_only_the_answer_is_to_be_predicted(vessa):
    inputs = example(vessa, answers=["<SEG>.", "Sure, the segmentation result is <SEG>."]).language
    tokens = vessa.language.prompter.tokenizer
    for row, answer in enumerate(["<SEG>.<|im_end|>\n", "Sure, the segmentation result is <SEG>.<|im_end|>\n"]):
        assert tokens.decode(inputs.labels[row][inputs.labels[row] >= 0]) == answer


def test_h_seg_is_the_projected_last_state_at_the_token(vessa):
    inputs, language = example(vessa).language, vessa.language
    with torch.no_grad():
        whole = language.qwen(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            mm_token_type_ids=inputs.mm_token_type_ids,
            pixel_values=inputs.pixel_values,
            image_grid_thw=inputs.image_grid_thw,
            output_hidden_states=True,
        )
        said = language(inputs)
        first, second = language.projector[0], language.projector[2]
        for row in range(2):
            (place,) = (inputs.input_ids[row] == language.prompter.seg).nonzero().flatten().tolist()
            state = whole.hidden_states[-1][row, place]
            expected = second.weight @ torch.relu(first.weight @ state + first.bias) + second.bias
            torch.testing.assert_close(said.prompts[row], expected, atol=1e-5, rtol=1e-4)


def test_the_text_term_is_transformers_own_loss(vessa):
    inputs = example(vessa, answers=[ANSWERS[4], ANSWERS[3]]).language
    with torch.no_grad():
        said = vessa.language(inputs)
        own = vessa.language.qwen(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            mm_token_type_ids=inputs.mm_token_type_ids,
            pixel_values=inputs.pixel_values,
            image_grid_thw=inputs.image_grid_thw,
            labels=inputs.labels,
        ).loss
    ours = torch.nn.functional.cross_entropy(said.text_logits, said.text_targets)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-4)


def test_a_pair_says_the_same_alone_and_padded_in_a_batch(vessa):
    targets, templates, masks = pictures(2), pictures(2, seed=50), blobs(2)
    asked, said = [instruction(1), instruction(0)], [ANSWERS[4], ANSWERS[3]]
    with torch.no_grad():
        together = vessa(vessa.pairs(targets, templates, masks, asked, said)).logits
        alone = vessa(vessa.pairs(targets[:1], templates[:1], masks[:1], asked[:1], said[:1])).logits
    torch.testing.assert_close(together[:1], alone, atol=2e-4, rtol=1e-3)


def test_target_template_and_mask_reach_the_answer_through_the_language_model(vessa):
    targets, templates, masks = pictures(1), pictures(1, seed=50), blobs(1)
    plain = vessa.prompts(targets, templates, masks)
    changed = [
        vessa.prompts(pictures(1, seed=7), templates, masks),
        vessa.prompts(targets, pictures(1, seed=8), masks),
        vessa.prompts(targets, templates, [~masks[0]]),
        vessa.prompts(targets, templates, masks, ["liver"]),
    ]
    assert min((plain - each).abs().max().item() for each in changed) > 1e-5


def test_the_ablations_leave_out_what_they_say():
    whole, no_vlm, no_memory = tiny_vessa(), tiny_vessa(language=False), tiny_vessa(memory=False)
    assert no_vlm.language is None
    assert no_vlm.prompts(pictures(1), pictures(1), blobs(1)) is None
    pairs = example(whole)
    with torch.no_grad():
        answers = [each(pairs).logits for each in (whole, no_vlm, no_memory)]
        other_mask = masks_to_frames(blobs(2, seed=33), 64)
        changed = type(pairs)(pairs.targets, pairs.templates, other_mask, pairs.language)
        # Without memory the template reaches the mask through the language model alone.
        assert torch.equal(no_memory(changed).logits, answers[2])
        assert (no_vlm(changed).logits - answers[1]).abs().max() > 1e-3
    assert min((answers[i] - answers[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3


def test_one_of_both_must_say_what_to_segment():
    with pytest.raises(ValueError, match="nothing says what to segment"):
        VessaConfiguration(sam2=SAM2, memory=False)


def test_only_the_adapter_the_new_row_the_projector_and_sam2_behind_its_encoder_learn():
    vessa = tiny_vessa().train()
    vessa.train_what_is_trained()
    before = {name: parameter.detach().clone() for name, parameter in vessa.named_parameters()}
    pairs = example(vessa)
    optimizer = torch.optim.SGD([each for each in vessa.parameters() if each.requires_grad], lr=0.5)
    vessa_loss(vessa(pairs), masks_to_frames(blobs(2), 64)).total.backward()
    optimizer.step()
    moved = {name for name, parameter in vessa.named_parameters() if not torch.equal(parameter, before[name])}
    kinds = ("lora_", "seg_read", "projector", "sam_mask_decoder", "memory_encoder", "memory_attention")
    assert all(any(kind in name for kind in (*kinds, "obj_ptr_proj")) for name in moved)
    for kind in kinds:
        assert any(kind in name for name in moved), kind
    assert not any("image_encoder" in name or "visual" in name or "conv_s" in name for name in moved)


def test_of_the_vocabulary_only_the_new_tokens_row_learns():
    vessa = tiny_vessa()
    language = vessa.language.train()
    row, matrix = language.seg_read, language.qwen.get_input_embeddings().weight
    assert torch.equal(row, matrix[language.prompter.seg])
    assert not matrix.requires_grad
    inputs = example(vessa).language
    prompts = language(inputs).prompts.detach()
    with torch.no_grad():
        row.add_(1.0)
    said = language(inputs)
    assert (said.prompts - prompts).abs().max() > 1e-4
    # Tied: the same row also scores the token as an answer.
    state = torch.ones(32)
    seg = language.prompter.seg
    logits = language.qwen.lm_head(state)
    torch.testing.assert_close(logits[seg], (row * state).sum())
    expected = matrix @ state
    expected[seg] = logits[seg]
    torch.testing.assert_close(logits, expected)


def test_the_new_row_is_learnt_as_if_the_whole_matrix_were(vessa):
    """Against autograd on a whole, tied matrix: the row's gradient from reading and scoring the token together."""
    language = vessa.language
    inputs, seg = example(vessa).language, language.prompter.seg
    said = language(inputs)
    loss = torch.nn.functional.cross_entropy(said.text_logits, said.text_targets) + said.prompts.square().sum()
    (ours,) = torch.autograd.grad(loss, [language.seg_read])
    whole = language.qwen.get_input_embeddings().weight.detach().clone()
    whole[seg] = language.seg_read.detach()
    whole.requires_grad_(True)
    reading = language.qwen.get_input_embeddings().register_forward_hook(lambda _, given, __: whole[given[0]])
    scoring = language.qwen.lm_head.register_forward_hook(lambda _, given, __: given[0] @ whole.T)
    try:
        said = language(inputs)
    finally:
        reading.remove()
        scoring.remove()
    loss = torch.nn.functional.cross_entropy(said.text_logits, said.text_targets) + said.prompts.square().sum()
    (expected,) = torch.autograd.grad(loss, [whole])
    assert ours.abs().max() > 1e-4
    torch.testing.assert_close(ours, expected[seg], atol=1e-6, rtol=1e-4)


def test_no_pass_copies_the_matrix_of_the_vocabulary():
    vessa = tiny_vessa().train()
    vessa.train_what_is_trained()
    matrix = vessa.language.qwen.get_input_embeddings().weight
    with _Made(matrix) as made:
        vessa_loss(vessa(example(vessa)), masks_to_frames(blobs(2), 64)).total.backward()
    assert made.operations > 100
    assert made.copies == []


class _Made(TorchDispatchMode):
    """Notes operations that make a tensor of a matrix's size which is not the matrix itself."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.operations, self.copies = matrix, 0, []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        made = operation(*arguments, **(keywords or {}))
        self.operations += 1
        alike = isinstance(made, torch.Tensor) and sorted(made.shape) == sorted(self.matrix.shape)
        if alike and made.untyped_storage().data_ptr() != self.matrix.untyped_storage().data_ptr():
            self.copies.append(str(operation))
        return made


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for checkpointed in (False, True):
        vessa = tiny_vessa().train()
        vessa.train_what_is_trained()
        if checkpointed:
            vessa.language.checkpoint_activations()
        vessa_loss(vessa(example(vessa)), masks_to_frames(blobs(2), 64)).total.backward()
        gradients.append({n: p.grad for n, p in vessa.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("lora_B" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_a_language_model_is_loaded_from_a_folder(vessa, tmp_path):
    made = load_language(vessa.language.configuration.model_copy(update={"lora_rank": 2}), 32)
    plain = made.adapted.unload()
    plain.save_pretrained(tmp_path)
    made.prompter.tokenizer.save_pretrained(tmp_path)
    made.prompter.images.save_pretrained(tmp_path)
    assert isinstance(made.prompter.images, Qwen2VLImageProcessorPil)
    configuration = LanguageConfiguration(source=str(tmp_path), image_side=64, lora_rank=2, dtype="float32")
    loaded = load_language(configuration, 32)
    ours = loaded.qwen.model.language_model.layers[0].self_attn.q_proj.base_layer.weight
    torch.testing.assert_close(ours, plain.model.language_model.layers[0].self_attn.q_proj.weight)
    assert loaded.prompter.seg == made.prompter.seg


def test_a_language_model_that_is_not_here_is_named_with_the_way_out():
    with pytest.raises(WeightsError, match=r"language none.*without-vlm"):
        load_language(LanguageConfiguration(source="/nowhere/qwen"), 32)


def test_a_missing_package_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(WeightsError, match="sslseg\\[training\\]"):
        tiny_vessa()


def changed_language(**changes):
    plain = tiny_language(hidden=32, lora_rank=4)
    architecture = {**plain.architecture, **changes.pop("architecture", {})}
    return load_language(plain.model_copy(update={"architecture": architecture, **changes}), 32)


def test_where_input_and_output_rows_are_not_tied_both_learn():
    language = changed_language(architecture={"tie_word_embeddings": False}).train()
    trained = [name for name, parameter in language.named_parameters() if parameter.requires_grad]
    assert {name for name in trained if name.startswith("seg_")} == {"seg_read", "seg_scored"}
    said = language(example_of(language))
    torch.nn.functional.cross_entropy(said.text_logits, said.text_targets).backward()
    for name, parameter in language.named_parameters():
        if name.startswith("seg_"):
            assert parameter.grad.abs().sum() > 0, name


def test_frozen_weights_in_bfloat16_say_almost_the_same_and_what_learns_is_float32():
    exact, rounded = changed_language(), changed_language(dtype="bfloat16")
    inputs = example_of(exact)
    with torch.no_grad():
        one, other = exact(inputs).prompts, rounded(inputs).prompts
    assert other.dtype == torch.float32
    assert (one - other).abs().max() < 0.1 * one.abs().max()
    rounded(inputs).prompts.sum().backward()
    for name, parameter in rounded.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32, name
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_random_weights_are_made_in_their_own_precision_and_frequencies_of_positions_stay_exact():
    exact, rounded = changed_language(), changed_language(dtype="bfloat16")
    frozen = {parameter.dtype for parameter in rounded.adapted.parameters() if not parameter.requires_grad}
    assert frozen == {torch.bfloat16}
    frequencies = [each.qwen.model.language_model.rotary_emb.inv_freq for each in (exact, rounded)]
    assert frequencies[1].dtype == torch.float32
    assert torch.equal(*frequencies)


def example_of(language):
    asked = [instruction(0), instruction(1)]
    return language.prompter(pictures(2), pictures(2, seed=50), blobs(2), asked, [FIXED_ANSWER] * 2)

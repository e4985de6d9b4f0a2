import pytest

from SSLSegLib.vessa.configuration import tiny_language
from SSLSegLib.vessa.estimate import estimate_memory, true_size
from SSLSegLib.vessa.language_loading import load_language


def test_the_counts_are_those_of_a_model_that_is_built():
    configuration = tiny_language(hidden=32, lora_rank=4)
    language = load_language(configuration, 16)
    estimated = estimate_memory(configuration)
    base = sum(p.numel() for name, p in language.adapted.named_parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in language.parameters() if p.requires_grad)
    trained -= sum(p.numel() for p in language.projector.parameters())
    # The bytes' tokenizer needs fewer rows than the configuration has, so nothing was resized.
    assert estimated.parameters == base
    assert estimated.trained == trained


@pytest.mark.parametrize(("name", "billions"), [("2B", 2.1), ("4B", 4.4)])
def test_true_sizes_are_what_their_names_say(name, billions):
    estimated = estimate_memory(true_size(name))
    assert estimated.parameters / 1e9 == pytest.approx(billions, rel=0.06)
    assert estimated.weights < estimated.inference < estimated.training
    assert estimated.inference > estimated.weights + 4 * estimated.trained / 1e9  # with the adapter

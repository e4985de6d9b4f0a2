"""Settings validate themselves."""

import pytest
from pydantic import ValidationError

from SSLSegLib.tffs.options import PRESETS, TffsOptions


def test_defaults_are_those_of_the_paper_and_its_code():
    options = TffsOptions()
    assert (options.insertions, options.threshold, options.largest_component) == (5, 0.5, True)
    assert options.precision == "exact"
    assert options.max_conditioning_slices is None


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_what_is_not_given(preset):
    options = TffsOptions(preset=preset)
    assert {name: getattr(options, name) for name in PRESETS[preset]} == PRESETS[preset]
    assert TffsOptions(preset=preset, insertions=9).insertions == 9


def test_options_survive_the_trip_through_json():
    options = TffsOptions(preset="fast", threshold=0.4)
    assert TffsOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    "wrong",
    [{"insertions": 0}, {"threshold": 0.0}, {"threshold": 1.0}, {"precision": "double"}, {"preset": "best"}, {"R": 5}],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValidationError):
        TffsOptions(**wrong)


@pytest.mark.parametrize(("preset", "place"), [(None, None), ("fast", None), ("balanced", None), ("paper", False)])
def test_place_is_left_to_the_weights_but_for_the_paper(preset, place):
    assert TffsOptions(preset=preset).place is place
    assert TffsOptions(preset=preset, place=True).place is True
    assert TffsOptions(preset=preset, place=False).place is False


@pytest.mark.parametrize("asked", [None, True, False])
def test_the_command_lines_place_and_no_place_reach_the_options(asked):
    from SSLSegLib.commands.shared import tffs_options

    options = tffs_options(None, None, None, None, False, asked)
    assert options.place is asked

"""Cases of several channels: joined in the panel, checked before a run, written and segmented as one image."""

import numpy as np
import pytest
import slicer
from helpers_module import quiet, texts

from SSLSegLib.cases.reading import read_image, read_volume
from SSLSegLib.errors import SSLSegError


def add_second_channels(panel, names=("c0", "c1", "c2", "c3")):
    """To each case another volume of the scene, of the other sign, as a case of its own. Returns them."""
    added = {}
    for name in names:
        first = panel.session.cases.find(name).volume
        second = slicer.util.addVolumeFromArray(-slicer.util.arrayFromVolume(first), name=f"{name} T2")
        second.CopyOrientation(first)
        added[name] = panel.session.cases.add(second)
    panel.refresh()
    return added


def join(panel, name, other):
    """Select two cases and join them by the menu."""
    table = panel.ui.casesTable
    table.clearSelection()
    for row, (text, *_others) in enumerate(texts(table)):
        if text in (name, other):
            for column in range(4):
                table.item(row, column).setSelected(True)
    panel.casesSection._fill_menu()
    menu = panel.casesSection._menu
    next(action for action in list(menu.actions()) if action.text.startswith("Join the 2")).trigger()


@pytest.fixture
def two_channels(loaded):
    """The panel with four cases of two channels."""
    for name, second in add_second_channels(loaded).items():
        join(loaded, name, second.name)
    return loaded


def test_selected_cases_are_joined_as_channels_and_a_run_gets_them_in_their_order(two_channels, tmp_path):
    from SSLSegPanel.prepare import RunChoices, finish, prepare_steps

    cases = two_channels.session.cases
    assert [case.id for case in cases] == ["c0", "c1", "c2", "c3"]
    assert [volume.GetName() for volume in cases.find("c2").volumes] == ["c2", "c2 T2"]
    assert cases.find("c0").segmentation.GetName() == "c0 label"
    assert "2 channels" in texts(two_channels.ui.casesTable)[2][3]
    assert two_channels.ui.applyButton.enabled, two_channels.ui.applyButton.toolTip
    choices = RunChoices.from_parameters(two_channels.session.parameters)
    job = finish(prepare_steps(list(cases), choices, tmp_path / "run"))
    cohort = job.manifest.checked_parameters().loaded_cohort()
    for case in cohort.cases:
        written = read_volume(cohort, case).array
        expected = [slicer.util.arrayFromVolume(volume) for volume in cases.find(case.id).volumes]
        assert np.array_equal(written, np.stack(expected)), case.id


@pytest.mark.parametrize("channel", [0, 1])
def test_a_deleted_channel_is_told_and_no_other_takes_its_place(host, two_channels, channel):
    case = two_channels.session.cases.find("c2")
    slicer.mrmlScene.RemoveNode(case.volumes[channel])
    quiet(host, two_channels)
    assert "channels was deleted" in texts(two_channels.ui.casesTable)[2][3]
    assert not two_channels.ui.applyButton.enabled


def test_a_cohort_that_lost_a_channel_is_loaded_again(host, loaded, tmp_path):
    from SSLSegLib.cases.cohort import Cohort

    case = loaded.session.cases.find("c3")
    folder = tmp_path / "two"
    (folder / "images").mkdir(parents=True)
    for channel in range(2):
        slicer.util.saveNode(case.volume, str(folder / "images" / f"x_{channel}.nrrd"))
    images = ["images/x_0.nrrd", "images/x_1.nrrd"]
    content = {"schema_version": 1, "name": "two", "modality": "MR", "classes": [{"value": 1, "name": "organ"}]}
    content["cases"] = [{"id": "x", "role": "unlabelled", "images": images}]
    Cohort.from_dict(content, folder).save(folder / "cohort.json")
    loaded.casesSection.load(folder / "cohort.json")
    quiet(host, loaded)
    slicer.mrmlScene.RemoveNode(loaded.session.cases.find("x").volumes[0])
    loaded.casesSection.load(folder / "cohort.json")
    quiet(host, loaded)
    assert loaded.session.cases.find("x").problem() == ""
    assert len(loaded.session.cases.find("x").volumes) == 2


def test_channels_of_different_grids_are_refused(host, loaded):
    second = add_second_channels(loaded, ["c2"])["c2"]
    second.volume.SetOrigin(0, 0, 3)
    join(loaded, "c2", second.name)
    assert "different grids" in texts(loaded.ui.casesTable)[2][3]
    assert not loaded.ui.applyButton.enabled


def test_cases_with_unlike_numbers_of_channels_start_no_run(host, loaded):
    second = add_second_channels(loaded, ["c2"])["c2"]
    join(loaded, "c2", second.name)
    assert not loaded.ui.applyButton.enabled
    assert "All cases need the same channels" in loaded.ui.applyButton.toolTip


@pytest.mark.parametrize("listed", [True, False])
def test_a_model_is_given_all_channels_of_a_case(two_channels, finished_job, monkeypatch, listed):
    from SSLSegPanel import children, model_use
    from SSLSegPanel.job_run import JobRun
    from SSLSegPanel.prepare import finish

    case, seen = two_channels.session.cases.find("c2"), []

    def look(arguments, log):
        seen.append(read_image(arguments[4]).array)
        raise SSLSegError("looked")
        yield

    monkeypatch.setattr(children, "child_steps", look)
    monkeypatch.setattr(model_use, "last_training", lambda run: finished_job / "selftraining")
    monkeypatch.setattr(model_use, "trained_round", lambda run: "round 1")
    if listed:
        case.role = "test"
    else:
        two_channels.ui.applyVolumeSelector.setCurrentNode(case.volume)
    with pytest.raises(SSLSegError, match="looked"):
        finish(two_channels.logic.applyModelSteps(JobRun.open(finished_job), two_channels.exportSection._volumes()))
    assert np.array_equal(seen[0], np.stack([slicer.util.arrayFromVolume(each) for each in case.volumes]))

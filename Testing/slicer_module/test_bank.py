"""The template bank that a person keeps for VESSA: grown from the scene, looked at, thinned out, used by a run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import slicer
from helpers_module import quiet, texts
from slicerhost.fixtures import host, slicer_host  # noqa: F401 - pytest needs the names

from SSLSegLib.vessa.bank_files import read_bank, read_record

ROOT = Path(__file__).resolve().parents[2]


def settled(host, panel):  # noqa: F811
    host.wait_until(lambda: not panel.methodSection.bank.work.busy, 400)  # a child that loads torch, on any machine
    quiet(host, panel)


@pytest.fixture
def with_folder(host, loaded, tmp_path):  # noqa: F811
    """The panel with the method VESSA and a folder for a bank, which is not there yet."""
    loaded.methodSection.onMethod(1)
    loaded.ui.bankEdit.setCurrentPath(str(tmp_path / "bank"))
    settled(host, loaded)
    return loaded


@pytest.fixture(scope="session")
def bank_folder(inputs, tmp_path_factory):
    """A bank of the cohort's labelled cases, made by the script that the panel runs."""
    folder = tmp_path_factory.mktemp("bank")
    choices = {"cohort": str(inputs.cohort), "bank": str(folder / "bank"), "accepted": [], "device": "cpu"}
    (folder / "choices.json").write_text(json.dumps({**choices, "weights": str(inputs.weights)}))
    script = ROOT / "SSLSeg" / "Scripts" / "grow_bank.py"
    subprocess.run([sys.executable, script, folder / "choices.json"], check=True, timeout=400, cwd=ROOT)
    return folder / "bank"


@pytest.fixture
def grown(host, loaded, bank_folder, tmp_path):  # noqa: F811
    """The panel with the method VESSA and a bank that holds templates."""
    shutil.copytree(bank_folder, tmp_path / "bank")
    loaded.methodSection.onMethod(1)
    loaded.ui.bankEdit.setCurrentPath(str(tmp_path / "bank"))
    settled(host, loaded)
    return loaded


def test_the_bank_belongs_to_vessa_and_each_run_makes_its_own_without_a_folder(loaded):
    assert loaded.ui.bankBox.isHidden()
    loaded.methodSection.onMethod(1)
    assert not loaded.ui.bankBox.isHidden()
    assert "Each run makes" in loaded.ui.bankLabel.text
    assert "folder" in loaded.ui.growBankButton.toolTip
    assert loaded.ui.applyButton.enabled


def test_a_run_waits_for_the_first_templates(with_folder):
    assert "empty" in with_folder.ui.bankLabel.text
    assert not with_folder.ui.applyButton.enabled
    assert "template bank is empty" in with_folder.ui.applyButton.toolTip


def test_a_bank_is_shown_with_pictures_and_counts(grown, tmp_path):
    record = read_record(tmp_path / "bank")
    rows = texts(grown.ui.bankTable)
    assert len(rows) == len(record.templates) > 2
    assert {row[2] for row in rows} == {"drawn"}
    assert {name for row in rows for name in row[1].split(", ")} == {"class 1", "class 2"}
    assert "class 1 on" in grown.ui.bankLabel.text
    assert not grown.ui.bankTable.item(0, 0).icon().isNull()
    assert grown.ui.applyButton.enabled


def test_labelled_cases_become_templates_once_and_another_scan_of_the_same_name_replaces_none(
    host,  # noqa: F811
    with_folder,
    tmp_path,
):
    with_folder.ui.growBankButton.click()
    settled(host, with_folder)
    before = {each.id for each in read_record(tmp_path / "bank").templates}
    assert {each.rsplit("-", 1)[0] for each in before} == {"c0", "c1"}
    assert with_folder.ui.bankTable.rowCount == len(before)
    assert with_folder.ui.applyButton.enabled
    assert not list(tmp_path.glob("adding*"))
    volume = with_folder.session.cases.find("c0").volume
    slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    with_folder.ui.growBankButton.click()
    settled(host, with_folder)
    after = {each.id for each in read_record(tmp_path / "bank").templates}
    assert before < after
    assert {each.rsplit("-", 1)[0] for each in after - before} == {"c0"}


def test_accepted_cases_join_as_accepted(host, reviewing, tmp_path):  # noqa: F811
    case = reviewing.session.cases.find("c2")
    reviewing.resultsSection.show(case)
    reviewing.resultsSection.onAccept()
    reviewing.methodSection.onMethod(1)
    reviewing.ui.bankEdit.setCurrentPath(str(tmp_path / "bank"))
    settled(host, reviewing)
    reviewing.ui.growBankButton.click()
    settled(host, reviewing)
    origins = {each.subject.rsplit("-", 1)[0]: each.origin for each in read_record(tmp_path / "bank").templates}
    assert origins["c0"] == "label"
    assert origins.get("c2", "accepted") == "accepted"  # random weights may have found nothing in it
    assert "c3" not in origins


def test_selected_templates_are_removed_after_a_yes(host, grown, tmp_path, monkeypatch):  # noqa: F811
    count = grown.ui.bankTable.rowCount
    gone = grown.ui.bankTable.item(0, 0).text()
    assert not grown.ui.removeTemplatesButton.enabled
    grown.ui.bankTable.selectRow(0)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: None)
    grown.ui.removeTemplatesButton.click()
    settled(host, grown)
    assert grown.ui.bankTable.rowCount == count
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    grown.ui.removeTemplatesButton.click()
    settled(host, grown)
    assert grown.ui.bankTable.rowCount == count - 1
    assert gone not in [each.id for each in read_bank(tmp_path / "bank").templates]


def test_a_run_takes_a_copy_of_the_bank(host, grown, tmp_path):  # noqa: F811
    grown.ui.applyButton.click()
    host.wait_until(lambda: grown.runSection.state == "idle", 300)
    assert "Finished" in grown.ui.statusLabel.text, grown.ui.statusLabel.text
    copy = grown.session.run.job.folder.parent / "bank"
    assert {each.id for each in read_record(copy).templates} == {
        each.id for each in read_record(tmp_path / "bank").templates
    }


def test_a_folder_of_something_else_is_told_and_left_alone(host, with_folder, tmp_path, monkeypatch):  # noqa: F811
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "holiday.txt").write_text("mine")
    with_folder.ui.growBankButton.click()
    settled(host, with_folder)
    assert "holds no template bank" in said[0]
    assert [path.name for path in (tmp_path / "bank").iterdir()] == ["holiday.txt"]


def test_a_damaged_bank_is_told_in_the_panel(host, grown, tmp_path):  # noqa: F811
    (tmp_path / "bank" / "bank.json").write_text("{")
    grown.methodSection.bank.look()
    settled(host, grown)
    assert "cannot be read" in grown.ui.bankLabel.text
    assert grown.ui.bankTable.rowCount == 0
    assert not grown.ui.applyButton.enabled
    assert "cannot be read" in grown.ui.applyButton.toolTip


def test_a_damaged_template_is_told_marked_and_can_be_removed(host, grown, tmp_path, monkeypatch):  # noqa: F811
    count = grown.ui.bankTable.rowCount
    broken = read_record(tmp_path / "bank").templates[1].id
    picture = tmp_path / "bank" / "images" / f"{broken}.png"
    picture.unlink()
    grown.session.cases_changed.emit()  # whatever comes next: nobody asks for the bank by name
    settled(host, grown)
    assert f"images/{broken}.png is missing" in grown.ui.bankLabel.text
    assert "press Remove" in grown.ui.bankLabel.text
    assert not grown.ui.applyButton.enabled
    assert f"images/{broken}.png is missing" in grown.ui.applyButton.toolTip
    assert grown.ui.bankTable.item(1, 0).toolTip() == f"images/{broken}.png is missing"
    grown.ui.bankTable.selectRow(1)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    grown.ui.removeTemplatesButton.click()
    settled(host, grown)
    assert grown.ui.bankTable.rowCount == count - 1
    assert "class 1 on" in grown.ui.bankLabel.text
    assert grown.ui.applyButton.enabled


def test_the_method_that_needs_no_bank_runs_beside_a_damaged_one(host, grown, tmp_path):  # noqa: F811
    (tmp_path / "bank" / "features.npy").unlink()
    grown.methodSection.bank.look()
    settled(host, grown)
    assert not grown.ui.applyButton.enabled
    grown.methodSection.onMethod(0)
    assert grown.ui.applyButton.enabled


def test_cases_are_not_added_to_a_damaged_bank(host, grown, tmp_path, monkeypatch):  # noqa: F811
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    next((tmp_path / "bank" / "masks").iterdir()).unlink()
    grown.ui.growBankButton.click()
    settled(host, grown)
    assert "is missing" in said[0]
    assert "press Remove" in said[0]  # told here, before any work, not by the child
    assert not list(tmp_path.glob("adding*"))

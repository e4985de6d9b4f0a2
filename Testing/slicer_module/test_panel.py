import ast
import re
import time
from pathlib import Path

import pytest
import slicer
from helpers_module import quiet, texts
from slicerhost import pythonqt_lint

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.estimate import count_work
from SSLSegLib.jobs.events import read_events
from SSLSegLib.pipelines.place import zoomed
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.weights.loading import load_sam2

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "SSLSeg"
UI = MODULE_FOLDER / "Resources" / "UI" / "SSLSeg.ui"


def widgets_of_ui():
    import xml.etree.ElementTree as ElementTree

    shown = ("QPushButton", "QComboBox", "QTableWidget", "QCheckBox", "QSpinBox", "QDoubleSpinBox", "QPlainTextEdit")
    own = ("ctkPathLineEdit", "ctkSliderWidget", "qMRMLNodeComboBox", "QProgressBar")
    root = ElementTree.parse(UI).getroot()
    return [each.get("name") for each in root.iter("widget") if each.get("class") in shown + own]


def test_the_panel_opens_and_says_what_is_missing(panel):
    assert not panel.ui.applyButton.enabled
    assert "labelled case" in panel.ui.applyButton.toolTip
    assert "unlabelled case" in panel.ui.applyButton.toolTip


@pytest.mark.parametrize("name", widgets_of_ui())
def test_every_control_has_a_tooltip(panel, name):
    assert getattr(panel.ui, name).toolTip


@pytest.mark.parametrize("path", sorted(MODULE_FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_is_used_that_pythonqt_takes_differently(path):
    assert [str(each) for each in pythonqt_lint.lint(path, [UI])] == []


# Words of files, of other software and of the log: not shown, or the same in every language.
NOT_TRANSLATED = (
    "Segmentation category and type", "Joint smoothing", "SSLSeg case", "The SSLSeg developers", "<span style",
    "SSLSeg: surfaces are not made", "first labels", "training ", "labels of ", "round ", "ships with SSLSeg",
    " What to do: ", " is none of ", "labelled cases left out in turn", "comparing first labels",
)  # fmt: skip


def untranslated(path):
    """Texts of several words in a file of the panel that do not go through ``_()``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    fine = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("_", "translate", "namedtuple"):
            fine |= {id(each) for each in ast.walk(node)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # what describes the code
            fine.add(id(node.value))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts = [
        node.value
        for node in found
        if id(node) not in fine and re.search(r"[A-Za-z]{2} [A-Za-z({]| [a-z]+ $", node.value)
    ]
    return [text for text in texts if not text.startswith(NOT_TRANSLATED)]


@pytest.mark.parametrize("path", sorted(MODULE_FOLDER.glob("SSLSeg*/*.py")), ids=lambda path: path.name)
def test_every_visible_text_is_translated(path):
    assert path.name == "self_test.py" or untranslated(path) == []


@pytest.mark.parametrize("name", ["casesSection", "resultsSection", "refineSection", "setupSection"])
def test_a_section_with_a_table_is_not_drawn_out_in_a_tall_window(host, loaded, name):
    sections = [each for each in dir(loaded.ui) if each.endswith("Section")]
    for each in sections:
        getattr(loaded.ui, each).collapsed = each != name
    host.process_events()
    section = getattr(loaded.ui, name)
    assert section.height <= section.sizeHint().height() + 2


def test_long_lists_are_seen_at_a_glance(host, loaded):
    table = loaded.ui.casesTable
    before = table.height
    for number in range(30):
        loaded.session.cases.add(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"scan {number}"))
        if number == 7:
            loaded.refresh()
            host.process_events()
            assert not table.verticalScrollBar().visible
            twelve = table.height
    loaded.refresh()
    host.process_events()
    assert before < twelve < table.height < 400
    assert table.verticalScrollBar().visible


def test_a_cohort_fills_the_table_and_enables_the_button(loaded):
    rows = texts(loaded.ui.casesTable)
    assert [row[:2] for row in rows] == [
        ["c0", "Labelled"],
        ["c1", "Labelled"],
        ["c2", "Unlabelled"],
        ["c3", "Unlabelled"],
    ]
    assert [row[0] for row in texts(loaded.ui.classesTable)] == ["class 1", "class 2"]
    assert loaded.ui.applyButton.enabled, loaded.ui.applyButton.toolTip
    assert "2 cases, up to 200 slices" in loaded.ui.estimateLabel.text


def test_the_slices_to_track_are_those_that_a_run_of_the_same_cases_has_tracked(loaded, finished_job):
    events = read_events(finished_job / "events.jsonl")
    tracked = [each["total"] for each in events if each["event"] == "progress" and each["stage"] == "Segmenting"]
    assert f"up to {tracked[-1]} slices" in loaded.ui.estimateLabel.text


@pytest.mark.parametrize("place", ["auto", "no"])
def test_thin_slices_are_counted_from_all_sides_with_weights_that_look_there_as_the_run_counts_them(
    host, panel, tmp_path, place
):
    from small_cohort import write_small_cohort
    from SSLSegPanel.settings import Place

    path = write_small_cohort(tmp_path / "thin", slices=10, size=(36, 32), thickness=1.0)
    panel.casesSection.load(path)
    quiet(host, panel)
    panel.session.parameters.place = Place(place)
    panel.refresh()
    options = TffsOptions(preset="balanced", **Place(place).asked)
    work = count_work(Cohort.load(path), options, zoomed=zoomed(options, load_sam2("sslseg-small", "cpu")))
    assert f"up to {work.tracked:,} slices" in panel.ui.estimateLabel.text
    assert (work.tracked == 2 * 2 * 2 * 5 * 10) == (place == "no")


def test_vessa_says_that_it_is_not_estimated(host, loaded):
    loaded.session.parameters.method = "vessa"
    loaded.refresh()
    text = loaded.ui.estimateLabel.text
    assert text.startswith("2 cases, each slice")
    assert "not estimated" in text


def test_volumes_of_the_scene_become_cases_with_the_segmentation_that_was_drawn_on_them(host, loaded):
    for case in list(loaded.session.cases):
        loaded.session.cases.remove(case)
    loaded.casesSection.onAddScene()
    assert [case.role for case in loaded.session.cases] == ["labelled", "labelled", "unlabelled", "unlabelled"]
    assert [case.id for case in loaded.session.cases] == ["case_001", "case_002", "case_003", "case_004"]
    assert next(iter(loaded.session.cases)).segmentation.GetName() == "c0 label"


def test_a_role_is_changed_for_all_selected_cases(host, loaded):
    loaded.ui.casesTable.selectRow(2)
    loaded.ui.roleBox.setCurrentIndex(3)
    loaded.casesSection.onRole(3)
    assert loaded.session.cases.find("c2").role == "ignored"
    assert "1 ignored" in loaded.ui.casesSummary.text


def test_a_labelled_case_without_segmentation_stops_the_run_with_a_sentence(loaded):
    loaded.session.cases.find("c2").role = "labelled"
    loaded.refresh()
    assert not loaded.ui.applyButton.enabled
    assert "c2: A labelled case needs a segmentation" in loaded.ui.applyButton.toolTip


def test_a_volume_under_a_transform_is_refused_not_ignored(loaded):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    loaded.session.cases.find("c3").volume.SetAndObserveTransformNodeID(transform.GetID())
    loaded.refresh()
    assert "lies under a transform" in loaded.ui.applyButton.toolTip
    assert not loaded.ui.applyButton.enabled


def test_an_unticked_class_is_left_out_and_the_choice_is_the_scenes(host, loaded):
    import qt

    loaded.ui.classesTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    host.process_events()
    assert loaded.session.parameters.ignoredSegments == {"class 1": True}
    assert "100 slices" in loaded.ui.estimateLabel.text
    loaded.ui.classesTable.item(1, 0).setCheckState(qt.Qt.Unchecked)
    host.process_events()
    assert "Tick at least one class" in loaded.ui.applyButton.toolTip


def test_a_deleted_volume_is_told_and_a_renamed_one_shows_its_new_name(host, loaded):
    cases = loaded.session.cases
    slicer.mrmlScene.RemoveNode(cases.find("c2").volume)
    cases.find("c3").volume.SetName("follow-up")
    host.wait_until(lambda: "deleted" in texts(loaded.ui.casesTable)[2][3])
    assert texts(loaded.ui.casesTable)[3][0] == "follow-up"
    assert "c2: Its volume was deleted" in loaded.ui.applyButton.toolTip


def test_cases_and_settings_come_back_with_a_saved_scene(host, loaded, tmp_path):
    loaded.session.parameters.seed = 7
    loaded.session.parameters.threshold = 0.6
    loaded.session.cases.find("c3").role = "test"
    from SSLSegLib.scene.files import save_scene

    save_scene(slicer.mrmlScene, tmp_path / "saved.mrb")
    slicer.mrmlScene.Clear(0)
    host.wait_until(lambda: loaded.ui.casesTable.rowCount == 0)
    assert not loaded.ui.applyButton.enabled
    slicer.util.loadScene(str(tmp_path / "saved.mrb"))
    host.wait_until(lambda: loaded.ui.casesTable.rowCount == 4)
    cases = loaded.session.cases
    assert [case.role for case in cases] == ["labelled", "labelled", "unlabelled", "test"]
    assert cases.find("c0").segmentation.GetName() == "c0 label"
    assert cases.find("c0").volume.GetImageData() is not None
    assert loaded.ui.seedBox.value == 7
    assert loaded.ui.thresholdSlider.value == pytest.approx(0.6)


def test_adding_a_cohort_twice_adds_nothing(host, loaded, inputs):
    before = slicer.mrmlScene.GetNumberOfNodes()
    loaded.casesSection.load(inputs.cohort)
    host.wait_until(lambda: not loaded.session.stepper.busy)
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert len(loaded.session.cases) == 4


def test_a_cohort_that_cannot_be_read_is_told_and_leaves_the_panel_usable(host, panel, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    (tmp_path / "cohort.json").write_text("{}")
    panel.casesSection.load(tmp_path / "cohort.json")
    host.wait_until(lambda: said)
    assert "schema_version" in said[0]
    assert panel.ui.addButton.enabled


def test_one_folder_of_a_data_set_is_answered_with_the_folder_above_it(host, panel, inputs, monkeypatch):
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    panel.casesSection.load(inputs.cohort.parent / "images")
    host.wait_until(lambda: said)
    assert said[0].endswith(f"\n\nChoose {inputs.cohort.parent}, the folder above.")
    assert "What to do" not in said[0]


def test_what_cannot_be_pressed_says_why(panel, loaded):
    for name in ("removeButton", "acceptButton", "revertButton", "promoteButton", "nextSliceButton", "attachButton"):
        button = getattr(loaded.ui, name)
        assert not button.enabled, name
        assert button.toolTip.count(".") >= 1, name  # what it is for, and a sentence that says what to do first
    loaded.ui.casesTable.selectRow(0)
    assert loaded.ui.removeButton.enabled
    assert "first" not in loaded.ui.removeButton.toolTip


@pytest.mark.parametrize("section", ["methodSection", "runSection", "refineSection"])
def test_folding_and_unfolding_shows_nothing_that_was_hidden(host, panel, section):
    for collapsed in (True, False):
        getattr(panel.ui, section).collapsed = collapsed
        host.process_events()
    hidden = ("deviceLabel", "progressBar", "logText", "refineProgressBar", "refineStatusLabel", "guideBox")
    assert [name for name in hidden if not getattr(panel.ui, name).isHidden()] == []


def test_missing_weights_are_told_with_the_way_to_get_them(panel):
    panel.session.parameters.weights = "medsam2-latest"
    panel.refresh()
    problem = panel.logic.weightsProblem("medsam2-latest")
    assert problem == "" or "Download" in problem


def test_the_frames_of_a_sequence_become_cases(host, loaded):
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for value in ("0", "1"):
        sequence.SetDataNodeAtValue(loaded.session.cases.find("c0").volume, value)
    loaded.casesSection.onAddSequence(sequence)
    quiet(host, loaded)
    assert [case.name for case in loaded.session.cases][4:] == ["cine 001", "cine 002"]


def test_shortcuts_are_there_only_while_the_module_is_shown(host, panel):
    assert len(panel.resultsSection._shortcuts) == 5
    host.show_module("SegmentEditor")
    assert panel.resultsSection._shortcuts == []
    host.show_module("SSLSeg")
    assert len(panel.resultsSection._shortcuts) == 5


def test_steps_are_run_in_small_portions_that_let_the_window_breathe(host, panel):
    gaps, last = [], [time.monotonic()]

    def step():
        for _ in range(40):
            time.sleep(0.004)
            yield

    panel.session.stepper.start(step())
    while panel.session.stepper.busy:
        host.process_events()
        gaps.append(time.monotonic() - last[0])
        last[0] = time.monotonic()
    assert len(gaps) > 3

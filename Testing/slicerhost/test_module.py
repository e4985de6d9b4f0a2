"""A scripted module runs unmodified: loaded, used by mouse and by code, closed with the scene, saved and unloaded."""

from pathlib import Path

import numpy as np
import pytest

TOY = Path(__file__).parent / "toy" / "Toy.py"


@pytest.fixture
def toy(host):
    return host.load_module(TOY)


def ramp():
    import SampleData

    return SampleData.SampleDataLogic().downloadSample("Ramp")


def test_a_loaded_module_is_where_scripts_look_for_it(host, toy) -> None:
    import slicer

    assert toy is slicer.modules.ToyWidget
    assert slicer.modules.toy.widgetRepresentation().self() is toy
    assert slicer.modules.toy.path == str(TOY)
    assert slicer.modules.toy.title == "Toy"
    assert slicer.util.getModuleWidget("Toy") is toy
    assert slicer.util.modulePath("Toy") == str(TOY)
    assert toy.seen == ["enter"]
    assert toy.parent.isEntered


def test_the_panel_enables_apply_when_a_volume_is_chosen(host, toy) -> None:
    assert not toy.ui.applyButton.enabled
    toy.ui.inputSelector.setCurrentNode(ramp())
    assert toy.ui.applyButton.enabled
    assert toy.ui.applyButton.toolTip == "Segment the volume"
    assert toy.seen == ["enter", "Ramp"]


def test_apply_makes_a_real_segmentation(host, toy) -> None:
    import slicer

    volume = ramp()
    toy.ui.inputSelector.setCurrentNode(volume)
    toy.ui.thresholdSlider.value = 200
    toy.ui.applyButton.click()
    node = toy.ui.outputSelector.currentNode()
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "above", volume)
    assert np.array_equal(mask, slicer.util.arrayFromVolume(volume) >= 200)


def test_closing_the_scene_empties_the_panel_and_it_works_again(host, toy) -> None:
    import slicer

    toy.ui.inputSelector.setCurrentNode(ramp())
    toy.ui.noteEdit.text = "before"
    slicer.mrmlScene.Clear(0)
    assert not toy.ui.applyButton.enabled
    assert toy.ui.inputSelector.nodeCount() == 0
    assert toy.ui.noteEdit.text == ""
    toy.ui.inputSelector.setCurrentNode(ramp())
    toy.ui.applyButton.click()
    assert toy.ui.outputSelector.currentNode() is not None


def test_parameters_come_back_with_the_scene(host, toy, tmp_path: Path) -> None:
    import slicer

    toy.ui.inputSelector.setCurrentNode(ramp())
    toy.ui.noteEdit.text = "kept"
    toy.ui.countBox.value = 8
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert toy.ui.noteEdit.text == ""
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    toy.enter()
    assert (toy.ui.noteEdit.text, toy.ui.countBox.value) == ("kept", 8)
    assert toy.ui.inputSelector.currentNode().GetName() == "Ramp"


def test_leaving_and_entering_a_module_is_told_to_it(host, toy) -> None:
    import slicer

    slicer.util.selectModule("SegmentEditor")
    assert toy.seen == ["enter", "exit"]
    assert not toy.parent.isEntered
    slicer.util.selectModule("Toy")
    assert toy.seen == ["enter", "exit", "enter"]
    assert slicer.util.selectedModule() == "Toy"


def test_the_segment_editor_stand_in_remembers_what_it_was_given(host) -> None:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(node)
    assert editor.segmentationNode() is node


def test_unloading_cleans_up_and_reloading_starts_anew(host, toy) -> None:
    import slicer

    host.unload_module("Toy")
    assert toy.seen == ["enter", "cleanup"]
    assert not hasattr(slicer.modules, "ToyWidget")
    ramp_volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "later")
    again = host.load_module(TOY)
    assert again is not toy
    again.ui.inputSelector.setCurrentNode(ramp_volume)
    assert again.ui.applyButton.enabled


def test_the_modules_own_test_runs(host, toy) -> None:
    import slicer

    slicer.selfTests["Toy"](msec=0)


def test_an_exception_in_a_slot_does_not_pass_unseen(host, toy) -> None:
    import qt

    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    assert any("ZeroDivisionError" in error for error in host.errors)
    host.errors.clear()


def test_an_error_that_mrml_reports_does_not_pass_unseen(host) -> None:
    import slicer

    slicer.vtkMRMLSegmentationStorageNode().ReadData(None)
    assert host.errors
    host.errors.clear()


def test_a_warning_of_qt_does_not_pass_unseen(host) -> None:
    import qt

    widget = qt.QWidget()
    qt.QVBoxLayout(widget)
    qt.QVBoxLayout(widget)
    assert any("already has a layout" in error for error in host.errors)
    host.errors.clear()


def test_an_error_in_apply_is_raised_in_testing_mode(host, toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.logic, "process", lambda *_: 1 / 0)
    toy.ui.inputSelector.setCurrentNode(ramp())
    with pytest.raises(ZeroDivisionError):
        toy.onApply()


def colours(view) -> np.ndarray:
    view.forceRender()
    image = view.grab().toImage().convertToFormat(view.grab().toImage().Format.Format_RGB888)
    return np.array(image.constBits()).reshape(image.height(), -1)[:, : 3 * image.width()].reshape(-1, 3).astype(int)


def orange(pixels: np.ndarray) -> int:
    """Pixels in the hue of the toy's segment, bright or mixed with grey."""
    red, green, blue = pixels.T
    return int(((red - blue > 60) & (red - green > 15) & (green - blue > 15)).sum())


def test_the_views_show_volume_and_segmentation(host, toy, tmp_path: Path) -> None:
    import slicer

    views = slicer.app.layoutManager()
    red, threed = views.sliceWidget("Green").sliceView(), views.threeDWidget(0).threeDView()
    assert orange(colours(red)) == 0
    toy.ui.inputSelector.setCurrentNode(ramp())
    toy.ui.applyButton.click()
    toy.ui.outputSelector.currentNode().CreateClosedSurfaceRepresentation()
    views.resetThreeDViews()
    picture = host.grab(tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    assert (picture.width(), picture.height()) == (1400, 900)
    assert orange(colours(red)) > 1000
    assert orange(colours(threed)) > 1000


def test_the_mouse_wheel_moves_a_slice_by_slicers_own_style(host) -> None:
    import qt
    import slicer

    slicer.util.setSliceViewerLayers(background=slicer.util.addVolumeFromArray(np.ones((20, 24, 28))), fit=True)
    widget = slicer.app.layoutManager().sliceWidget("Red")
    before = widget.sliceLogic().GetSliceOffset()
    view = widget.sliceView()
    event = qt.QWheelEvent(
        qt.QPointF(50, 50), view.mapToGlobal(qt.QPointF(50, 50)), qt.QPoint(), qt.QPoint(0, 120),
        qt.Qt.NoButton, qt.Qt.NoModifier, qt.Qt.NoScrollPhase, False,
    )  # fmt: skip
    slicer.app.sendEvent(view, event)
    assert widget.sliceLogic().GetSliceOffset() == before + 1


def test_a_ui_file_with_a_widget_that_has_no_stand_in_says_so(host, tmp_path: Path) -> None:
    import slicer

    text = (TOY.parent / "Resources/UI/Toy.ui").read_text().replace("ctkSliderWidget", "ctkThermometer")
    (tmp_path / "x.ui").write_text(text)
    with pytest.raises(NotImplementedError, match="ctkThermometer"):
        slicer.util.loadUI(str(tmp_path / "x.ui"))


def test_a_scene_that_is_not_connected_in_the_ui_file_is_not_connected(host, tmp_path: Path) -> None:
    """Forgetting this is the commonest reason why Apply never becomes enabled."""
    import slicer

    text = (TOY.parent / "Resources/UI/Toy.ui").read_text()
    (tmp_path / "x.ui").write_text(text[: text.index("<connections>")] + "</ui>")
    widget = slicer.util.loadUI(str(tmp_path / "x.ui"))
    widget.setMRMLScene(slicer.mrmlScene)
    assert slicer.util.childWidgetVariables(widget).inputSelector.mrmlScene() is None

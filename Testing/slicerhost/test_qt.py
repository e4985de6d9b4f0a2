"""PySide6 behaves as PythonQt does where modules notice."""

import pytest


def test_properties_are_values_and_setters_stay_methods(host) -> None:
    import qt

    label = qt.QLabel("a")
    label.text += "b"
    assert label.text == "ab"
    label.setText("c")
    label.toolTip = "tip"
    assert (label.text, label.toolTip, label.enabled, label.isVisible()) == ("c", "tip", True, False)
    table = qt.QTableWidget(2, 3)
    table.setRowCount(5)
    assert (table.rowCount, table.columnCount) == (5, 3)
    box = qt.QComboBox()
    box.addItems(["x", "y"])
    box.currentIndex = 1
    assert (box.currentText, box.count, box.itemText(0)) == ("y", 2, "x")
    assert qt.QFile("nowhere").exists() is False
    assert qt.QFile.exists("nowhere") is False


def test_name_is_the_object_name(host) -> None:
    import qt

    button = qt.QPushButton()
    button.name = "apply"
    assert button.objectName == "apply"
    assert button.className() == "QPushButton"


@pytest.mark.parametrize("class_name", ["QPushButton", "QTimer", "ctkSliderWidget", "qMRMLNodeComboBox", "qMRMLWidget"])
def test_new_attributes_raise(host, class_name: str) -> None:
    import ctk
    import qt
    import slicer

    namespace = ctk if class_name.startswith("ctk") else slicer if class_name.startswith("qMRML") else qt
    widget = getattr(namespace, class_name)()
    with pytest.raises(AttributeError, match="textt"):
        widget.textt = "typo"


def test_python_subclasses_take_attributes(host) -> None:
    import qt

    class Mine(qt.QWidget):
        pass

    mine = Mine()
    mine.anything = 3
    assert mine.anything == 3


def test_read_only_properties_cannot_be_set(host) -> None:
    import qt

    with pytest.raises(AttributeError, match="not writable"):
        qt.QComboBox().count = 3


def test_signals_connect_by_text_with_the_arguments_it_names(host) -> None:
    import qt

    heard = []
    button = qt.QPushButton()
    button.checkable = True
    button.connect("clicked()", lambda: heard.append("clicked"))
    button.connect("clicked(bool)", lambda checked: heard.append(checked))
    button.clicked.connect(lambda: heard.append("object"))
    button.click()
    assert heard == ["clicked", True, "object"]


def test_disconnecting_by_text_stops_that_slot_only(host) -> None:
    import qt

    heard = []

    def first() -> None:
        heard.append(1)

    button = qt.QPushButton()
    button.connect("clicked()", first)
    button.connect("clicked()", lambda: heard.append(2))
    assert button.disconnect("clicked()", first)
    button.click()
    assert heard == [2]


@pytest.mark.parametrize("signal", ["clickd()", "clicked(QString)", "currentNodeChanged(vtkMRMLNode*)"])
def test_a_signal_that_is_not_there_raises(host, signal: str) -> None:
    import qt

    with pytest.raises(AttributeError, match="no signal"):
        qt.QPushButton().connect(signal, print)


def test_enums_are_flat_and_numbers(host) -> None:
    import qt

    assert int(qt.Qt.Checked) == 2
    assert qt.QMessageBox.Ok | qt.QMessageBox.Cancel == 0x400400
    with pytest.raises(AttributeError):
        qt.Signal  # noqa: B018


def test_a_process_runs_for_real(host) -> None:
    import sys

    import qt

    lines, ended = [], []
    process = qt.QProcess()
    process.connect(
        "readyReadStandardOutput()", lambda: lines.append(bytes(process.readAllStandardOutput().data()).decode())
    )
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ended.append((code, int(status.value))))
    process.start(sys.executable, ["-c", "print('from the child'); raise SystemExit(3)"])
    host.wait_until(lambda: ended)
    assert (lines, ended) == (["from the child\n"], [(3, 0)])


def test_timers_are_static_and_objects(host) -> None:
    import qt

    heard = []
    qt.QTimer.singleShot(0, lambda: heard.append("static"))
    timer = qt.QTimer()
    timer.singleShot = True
    timer.interval = 1
    timer.timeout.connect(lambda: heard.append("object"))
    timer.start()
    host.wait_until(lambda: len(heard) == 2)
    assert not timer.active


def test_settings_are_not_the_users(host) -> None:
    import qt
    import slicer

    settings = qt.QSettings()
    settings.setValue("SSLSeg/Device", "cpu")
    assert settings.fileName().startswith(slicer.app.temporaryPath)
    assert slicer.util.settingsValue("SSLSeg/Device", "") == "cpu"


def test_many_calls_that_return_nothing_do_not_wear_none_out(host) -> None:
    """Some PySide6 versions lose a reference to None in each such call, and abort after thousands."""
    import qt

    label = qt.QLabel()
    for _ in range(20_000):
        label.setText("x")
    assert label.text == "x"

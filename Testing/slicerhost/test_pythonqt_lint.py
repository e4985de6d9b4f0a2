"""The lint finds what the host lets pass and PythonQt does not."""

from pathlib import Path

import pytest

from slicerhost.pythonqt_lint import lint

TOY = Path(__file__).parent / "toy" / "Toy.py"

CASES = {
    "self.box.alignment = qt.Qt.AlignmentFlag.AlignLeft": "flat-enum",
    "self.ui.inputSelector.nodeTypes.append('vtkMRMLModelNode')": "tuple",
    "self.ui.inputSelector.nodeTypes == ['vtkMRMLModelNode']": "tuple",
    "self.button.clicked[bool].connect(f)": "connect",
    "self.button.connect('clicked(QString)', f)": "connect",
    "self.button.clicked.connect(lambda *args: f())": "connect",
    "self.button.clicked.connect(functools.partial(f, 1))": "connect",
    "class A(qt.QAbstractTableModel): pass": "derive",
    "changed = qt.Signal(str)": "not-in-pythonqt",
    "isinstance(w, qt.QWidget)": "isinstance",
    "self.button.sizeHint": "size-hint",
    "self.button.text()": "value-called",
    "self.button.setText = 'x'": "method-as-value",
    "self.ui.thresholdSlider.setMinimum(3)": "no-such-name",
    "self.ui.inputSelector.count": "no-such-name",
    "self.ui.inputSelector.itemText(0)": "no-such-name",
    "self.button.setEnabled(enabled=True)": "keyword",
    "qt.QLabel(text='x')": "keyword",
    "dialog.exec()": "exec",
    "event.position()": "qt6-only",
    "qt.QSettings().value('a')": "settings",
    "_(f'{n} cases')": "translation",
    "self.ui.applyButton.text = 'Apply'": "translation",
    "qt.QLabel('Volume')": "translation",
    "slicer.util.errorDisplay(f'Case {n} failed')": "translation",
    "self.parameters.names.get('a', 1)": "parameter-dict",
    "self._parameterNode.names.pop('a', None)": "parameter-dict",
    "slicer.util.setSliceViewerLayers(backgroud=v)": "slicer-util",
    "slicer.util.loadUI()": "slicer-util",
    "slicer.util.loadDicom(path)": "slicer-util",
    "slicer.loadVolume(path)": "slicer-util",
    "aside(slicer.mrmlScene.Clear, 0)": "main-thread",
}


@pytest.mark.parametrize("line", CASES)
def test_a_line_that_pythonqt_takes_differently_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.py"
    path.write_text(f"import qt\nself.button = qt.QPushButton()\n{line}\n")
    found = lint(path, [TOY.parent / "Resources/UI/Toy.ui"])
    assert [(finding.rule, finding.line) for finding in found] == [(CASES[line], 3)], found


def test_files_of_a_package_beside_the_module_know_its_widgets(tmp_path: Path) -> None:
    (tmp_path / "Resources/UI").mkdir(parents=True)
    (tmp_path / "Resources/UI/Toy.ui").write_text((TOY.parent / "Resources/UI/Toy.ui").read_text())
    (tmp_path / "Parts").mkdir()
    path = tmp_path / "Parts" / "section.py"
    path.write_text("def f(ui):\n    ui.applyButton.text()\n")
    assert [finding.rule for finding in lint(path)] == ["value-called"]


def test_a_good_module_passes() -> None:
    assert lint(TOY) == []


@pytest.mark.parametrize(
    "line",
    [
        "self.button.text = _('Apply')",
        "self.button.setText(_('{n} cases').format(n=3))",
        "self.button.connect('clicked(bool)', self.onApply)",
        "list(self.ui.inputSelector.nodeTypes).append('x')",
        "self.ui.thresholdSlider.minimum = 3",
        "qt.QLabel('')",
        "dialog.exec_()",
        "label = qt.QLabel(); label = 3; label.foo()",
    ],
)
def test_good_lines_pass(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.py"
    path.write_text(f"import qt\nself.button = qt.QPushButton()\n{line}\n")
    assert lint(path, [TOY.parent / "Resources/UI/Toy.ui"]) == []

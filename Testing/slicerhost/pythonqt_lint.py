"""Finds what works in the host and fails, or means something else, under PythonQt.

    python -m slicerhost.pythonqt_lint SSLSeg/SSLSeg.py

The .ui files of a module (``Resources/UI/*.ui``) tell the classes of ``self.ui.<name>`` and ``ui.<name>``.
"""

import ast
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from slicerhost.pythonqt_api import ENUM_CLASSES, class_named, kind_of
from slicerhost.slicer_lint import dotted, slicer_findings

__all__ = ["Finding", "lint", "main"]

_LISTS = {"nodeTypes", "hideChildNodeTypes", "nameFilters"}
_LIST_CALLS = {
    "checkedNodes",
    "uncheckedNodes",
    "children",
    "selectedSegmentIDs",
    "segmentIDs",
    "selectedIndexes",
    "selectedItems",
    "findChildren",
    "sliceViewNames",
    "topLevelWidgets",
}
_NOT_THERE = {
    "Signal": "own signals are not in every PythonQt: use Python callbacks",
    "Slot": "own slots are not in every PythonQt: use plain methods",
    "Property": "own properties are not in every PythonQt",
    "QRegExp": "gone in Qt 6: use re or QRegularExpression",
    "QDesktopWidget": "gone in Qt 6: use QGuiApplication.primaryScreen()",
    "QThread": "threads and Slicer's Python do not mix: use a process and QTimer",
    "QRunnable": "threads and Slicer's Python do not mix: use a process and QTimer",
}
_NOT_TO_DERIVE = ("Model", "Delegate", "Thread", "Runnable", "ProxyStyle")
_SHOWN = {"text", "toolTip", "title", "windowTitle", "statusTip", "whatsThis", "placeholderText", "prefix", "suffix"}
_SHOWING_CALLS = {f"set{name[0].upper()}{name[1:]}" for name in _SHOWN} | {
    "addRow",
    "addItem",
    "errorDisplay",
    "warningDisplay",
    "infoDisplay",
    "confirmOkCancelDisplay",
    "confirmYesNoDisplay",
    "showStatusMessage",
    "tryWithErrorDisplay",
}
_SHOWING_CLASSES = {
    "QLabel",
    "QPushButton",
    "QCheckBox",
    "QRadioButton",
    "QGroupBox",
    "QAction",
    "ctkCollapsibleButton",
}


_HOLDERS = ("self.ui", "self._ui", "ui")


@dataclass(frozen=True)
class Finding:
    """One thing to change."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


def lint(path: Path, ui_files: list[Path] | None = None) -> list[Finding]:
    """Check one Python file.

    Args:
        path: The file.
        ui_files: .ui files; by default those of ``Resources/UI`` beside the file.
    """
    path = Path(path)
    if ui_files is None:
        folders = [path.parent, path.parent.parent]  # a module's file, or one of a package beside it
        ui_files = [each for folder in folders for each in sorted((folder / "Resources" / "UI").glob("*.ui"))]
    widgets: dict[str, str] = {}
    for ui_file in ui_files:
        for each in _ui_elements(ui_file):
            for holder in _HOLDERS:
                widgets[f"{holder}.{each.get('name')}"] = each.get("class")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    assignments = _Assignments()
    assignments.visit(tree)
    checker = _Checker(str(path), widgets | assignments.classes)
    checker.visit(tree)
    checker.findings += [Finding(str(path), node.lineno, rule, said) for node, rule, said in slicer_findings(tree)]
    return sorted(checker.findings, key=lambda finding: finding.line)


def _ui_elements(path: Path) -> list[ElementTree.Element]:
    root = ElementTree.parse(path).getroot()
    return [*root.iter("widget"), *root.iter("action")]


class _Assignments(ast.NodeVisitor):
    """Names that hold a widget made in the file: ``self.button = qt.QPushButton()``."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}

    def visit_Assign(self, node: ast.Assign) -> None:
        class_name = _made_class(node.value)
        for target in node.targets:
            name = dotted(target)
            if name is None:
                continue
            if class_name is not None and self.classes.get(name, class_name) == class_name:
                self.classes[name] = class_name
            elif not name.startswith("self."):
                self.classes[name] = ""  # a local name with several meanings says nothing
        self.generic_visit(node)


class _Checker(ast.NodeVisitor):
    def __init__(self, path: str, classes: dict[str, str]) -> None:
        self.path, self.classes = path, classes
        self.findings: list[Finding] = []

    def _find(self, node: ast.AST, rule: str, message: str) -> None:
        self.findings.append(Finding(self.path, node.lineno, rule, message))

    def _class_of(self, node: ast.AST) -> type | None:
        return class_named(self.classes.get(dotted(node) or "", ""))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        whole = dotted(node) or ""
        parts = whole.split(".")
        if parts[0] == "qt" and len(parts) == 4 and parts[2] in ENUM_CLASSES:
            self._find(node, "flat-enum", f"write qt.{parts[1]}.{parts[3]}: PythonQt has no {parts[2]}")
        if parts[0] == "qt" and len(parts) == 2 and parts[1] in _NOT_THERE:
            self._find(node, "not-in-pythonqt", f"qt.{parts[1]}: {_NOT_THERE[parts[1]]}")
        if node.attr in ("sizeHint", "minimumSizeHint"):
            self._find(node, "size-hint", f"{node.attr} is a value in PythonQt and a method elsewhere: do without")
        cls = self._class_of(node.value)
        if cls is not None and not node.attr.startswith("_"):
            kind = kind_of(cls, node.attr)
            if kind is None:
                self._find(node, "no-such-name", f"{cls.__name__} has no {node.attr} that PythonQt shows")
            elif isinstance(node.ctx, ast.Store) and kind in ("method", "signal"):
                self._find(node, "method-as-value", f"{cls.__name__}.{node.attr} is a {kind}, it cannot be set")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute):
            cls = self._class_of(function.value)
            if cls is not None and kind_of(cls, function.attr) == "value":
                self._find(node, "value-called", f"{cls.__name__}.{function.attr} is a value in PythonQt: no brackets")
            if cls is not None and node.keywords:
                self._find(node, "keyword", f"PythonQt takes no keyword arguments: {cls.__name__}.{function.attr}()")
            if function.attr == "exec" and not node.args:
                self._find(node, "exec", "write exec_(): exec() is not in every PythonQt")
            if function.attr == "position" and dotted(function.value) == "event":
                self._find(node, "qt6-only", "event.position() is Qt 6 only")
            if function.attr == "connect":
                self._check_connect(node, function)
            if function.attr in ("append", "extend", "remove") and _is_sequence(function.value):
                self._find(node, "tuple", f"PythonQt gives a tuple: list(...) first, before {function.attr}()")
            if function.attr == "value" and _made_class(function.value) == "QSettings":
                self._find(
                    node,
                    "settings",
                    "settings from a file are text: slicer.util.settingsValue(key, default, converter)",
                )
        made = _made_class(node)
        if made is not None and node.keywords and class_named(made) is not None:
            self._find(node, "keyword", f"PythonQt takes no keyword arguments: {made}()")
        name = function.id if isinstance(function, ast.Name) else None
        if name == "isinstance" and (dotted(node.args[-1]) or "").split(".")[0] in ("qt", "ctk"):
            self._find(node, "isinstance", "isinstance with Qt classes is False for classes that Slicer wraps")
        if name == "_" and node.args and not _is_text(node.args[0]):
            self._find(node, "translation", "_() takes the plain text: format after translating")
        called = function.attr if isinstance(function, ast.Attribute) else None
        if called in _SHOWING_CALLS or made in _SHOWING_CLASSES:
            for argument in node.args[:1]:
                self._check_shown(argument)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Attribute) and target.attr in _SHOWN and not _is_self(target.value):
                self._check_shown(node.value)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for side in (node.left, *node.comparators):
            others = [each for each in (node.left, *node.comparators) if each is not side]
            if _is_sequence(side) and any(isinstance(each, ast.List) for each in others):
                self._find(node, "tuple", "PythonQt gives a tuple: it never equals a list")
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            name = dotted(base) or ""
            if name.startswith("qt.") and any(part in name for part in _NOT_TO_DERIVE):
                self._find(node, "derive", f"deriving from {name} is fragile in PythonQt")
        self.generic_visit(node)

    def _check_connect(self, node: ast.Call, function: ast.Attribute) -> None:
        if node.keywords:
            self._find(node, "connect", "connect() takes no keyword arguments")
        if isinstance(function.value, ast.Subscript):
            self._find(node, "connect", 'write connect("signal(type)", slot): signal[type] is not PythonQt')
        texts = [each.value for each in node.args[:1] if _is_text(each)]
        slot = node.args[1:2] if texts else node.args[:1]
        for each in slot:
            if isinstance(each, ast.Lambda) and each.args.vararg is not None:
                self._find(node, "connect", "a lambda with *arguments gets another number of them in PythonQt")
            if isinstance(each, ast.Call) and (dotted(each.func) or "").split(".")[-1] == "partial":
                self._find(node, "connect", "functools.partial gets all arguments in PythonQt: use a method")
        cls = self._class_of(function.value)
        for text in texts:
            if cls is not None and not _has_signal(cls, text):
                self._find(node, "connect", f"{cls.__name__} has no signal {text}")

    def _check_shown(self, value: ast.AST) -> None:
        parts = value.values if isinstance(value, ast.JoinedStr) else [value]
        texts = [each.value for each in parts if _is_text(each)]
        if any(character.isalpha() for text in texts for character in text):
            self._find(value, "translation", f"a text that people see goes through _(): {''.join(texts)!r}")


def _made_class(node: ast.AST) -> str | None:
    """``QLabel`` of ``qt.QLabel("x")``."""
    if isinstance(node, ast.Call):
        name = dotted(node.func) or ""
        first, _, last = name.partition(".")
        if first in ("qt", "ctk", "slicer") and last and last[0] in "Qqc" and "." not in last:
            return last
    return None


def _is_sequence(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _LISTS
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LIST_CALLS


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _has_signal(cls: type, text: str) -> bool:
    from PySide6 import QtCore

    if text in getattr(cls, "_signatures", {}):
        return True
    spelt = bytes(QtCore.QMetaObject.normalizedSignature(text)).decode()
    return cls.staticMetaObject.indexOfSignal(spelt) >= 0


def main(arguments: list[str]) -> int:
    """Print the findings of the named files; 1 where there are any."""
    findings = [finding for name in arguments for finding in lint(Path(name))]
    for finding in findings:
        print(finding)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

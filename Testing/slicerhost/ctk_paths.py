# ruff: noqa: N801, N802, N815 - the names are those of Slicer and Qt
"""ctk widgets for files and folders."""

import os
from pathlib import Path

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from slicerhost.qtpatch import HostClass

__all__ = ["ctkDirectoryButton", "ctkPathLineEdit"]


class ctkPathLineEdit(HostClass, QtWidgets.QWidget):
    """A file or folder name with a history and a button to browse."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    # Values of ctkPathLineEdit::Filter, which follow QDir::Filter
    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._filters, self._label, self._setting = 0x1 | 0x2, "", ""
        self._name_filters: list[str] = []
        self._options = 0
        self._valid = False
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._combo.setMinimumContentsLength(8)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        layout.addWidget(self._button)
        self._button.clicked.connect(lambda: self.browse())
        self._combo.editTextChanged.connect(self._changed)

    def _changed(self, path: str) -> None:
        valid = self._acceptable(path)
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)
        self.currentPathChanged.emit(path)

    def _acceptable(self, path: str) -> bool:
        if not path:
            return False
        return bool(self._filters & (self.Dirs if os.path.isdir(path) else self.Files))

    @Slot(str)
    def setCurrentPath(self, path: str) -> None:
        if not isinstance(path, str):
            raise TypeError(f"ctkPathLineEdit takes text, not {type(path).__name__}: use str(path)")
        self._combo.setEditText(path)

    @Slot()
    def browse(self) -> None:
        dialog = QtWidgets.QFileDialog
        if self._filters & self.Files:
            path = dialog.getOpenFileName(self, self._label, self._combo.currentText, ";;".join(self._name_filters))[0]
        else:
            path = dialog.getExistingDirectory(self, self._label, self._combo.currentText)
        if path:
            self.setCurrentPath(path)

    @Slot()
    def addCurrentPathToHistory(self) -> None:
        path = self._combo.currentText
        if path and self._combo.findText(path) < 0:
            self._combo.blockSignals(True)
            self._combo.insertItem(0, path)
            self._combo.setEditText(path)
            self._combo.blockSignals(False)
            if self._setting:
                settings = QtCore.QSettings()
                known = settings.value(self._setting) or []
                settings.setValue(self._setting, [path, *([known] if isinstance(known, str) else known)][:5])

    @Slot()
    def retrieveHistory(self) -> None:
        known = QtCore.QSettings().value(self._setting) or []
        self._combo.blockSignals(True)
        self._combo.clear()
        self._combo.addItems([known] if isinstance(known, str) else known)
        self._combo.blockSignals(False)
        if self._combo.count:
            self._combo.setCurrentIndex(0)

    def _set_filters(self, filters: int) -> None:
        self._filters = int(filters)

    def _set_label(self, label: str) -> None:
        self._label = label

    def _set_name_filters(self, filters: list[str]) -> None:
        self._name_filters = list(filters)

    def _set_options(self, options: int) -> None:
        self._options = int(options)

    def _set_setting(self, key: str) -> None:
        self._setting = key
        if key:
            self.retrieveHistory()

    def _set_button(self, shown: bool) -> None:
        self._button.setVisible(shown)

    currentPath = Property(str, lambda self: self._combo.currentText, setCurrentPath, notify=currentPathChanged)
    filters = Property(int, lambda self: self._filters, _set_filters)
    label = Property(str, lambda self: self._label, _set_label)
    nameFilters = Property("QStringList", lambda self: self._name_filters, _set_name_filters)
    options = Property(int, lambda self: self._options, _set_options)
    settingKey = Property(str, lambda self: self._setting, _set_setting)
    showBrowseButton = Property(bool, lambda self: not self._button.isHidden(), _set_button)


class ctkDirectoryButton(HostClass, QtWidgets.QWidget):
    """A button that shows and asks for a folder."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._directory, self._caption = str(Path.cwd()), ""
        self._button = QtWidgets.QPushButton(self._directory, self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(lambda: self.browse())

    @Slot()
    def browse(self) -> None:
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self._caption, self._directory)
        if path:
            self._set_directory(path)
            self.directorySelected.emit(path)

    def _set_directory(self, path: str) -> None:
        path = path if path == "." else os.path.abspath(path)
        if path != self._directory:
            self._directory = path
            self._button.setText(path)
            self.directoryChanged.emit(path)

    def _set_caption(self, caption: str) -> None:
        self._caption = caption

    directory = Property(str, lambda self: self._directory, _set_directory)
    caption = Property(str, lambda self: self._caption, _set_caption)

"""``qt.QUiLoader`` that knows the stand-ins, and makes the connections that Qt cannot make for Python signals."""

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools

from slicerhost.ctk import CTK_CLASSES
from slicerhost.qmrml import QMRML_CLASSES

__all__ = ["make_ui_loader"]

_CLASSES = {each.__name__: each for each in (*CTK_CLASSES, *QMRML_CLASSES)}


class QUiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file. A missing ``mrmlSceneChanged`` connection fails here as it does in Slicer."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for each in _CLASSES.values():
            self.registerCustomWidget(each)

    def load(self, file: Any, parent: Any = None) -> Any:
        tree = ElementTree.fromstring(bytes(file.readAll().data()))
        classes = {element.get("name"): element.get("class") for element in tree.iter("widget")}
        unknown = sorted(
            {name for name in classes.values() if name[:4] in ("qMRM", "ctkC") or name[:3] == "ctk"} - set(_CLASSES)
        )
        if unknown:
            raise NotImplementedError(f"The host has no stand-in for {', '.join(unknown)} yet")
        mine = []
        for connections in tree.findall("connections"):
            for connection in list(connections):
                if classes.get(connection.findtext("sender")) in _CLASSES:
                    mine.append(connection)
                    connections.remove(connection)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        for connection in mine:
            sender = _find(widget, connection.findtext("sender"))
            receiver = _find(widget, connection.findtext("receiver"))
            slot = getattr(receiver, connection.findtext("slot").partition("(")[0])
            sender.connect(connection.findtext("signal"), slot)
        return widget


def make_ui_loader() -> type:
    """The class that takes ``qt.QUiLoader``'s place."""
    return QUiLoader


def _find(widget: Any, name: str) -> Any:
    found = widget if widget.objectName == name else widget.findChild(QtCore.QObject, name)
    if found is None:
        raise RuntimeError(f"The .ui file connects {name}, which is not in it")
    return found

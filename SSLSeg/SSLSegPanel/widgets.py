"""Small helpers for widgets that every section uses."""

import qt

__all__ = ["enable", "fit", "put", "show_folder", "stretch", "tell", "timer"]

_CHECKABLE = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable
_FRAME = 24  # pixels of a table's header and border
_LEAST = {}  # object name -> height of an empty table
_TIPS = {}  # object name -> what its tooltip says while it can be used


def enable(widget, reason=""):
    """Enable a control, or disable it and say why in its tooltip, below what it is for."""
    tip = _TIPS.setdefault(widget.objectName, widget.toolTip)
    widget.enabled = not reason
    widget.toolTip = f"{tip}\n\n{reason}" if reason else tip


def tell(label, text):
    """Show a line of text, which takes no room while there is nothing to say."""
    label.text = text
    label.setVisible(bool(text))


def timer(interval, slot, once=False):
    """A timer, not started, that calls ``slot`` every ``interval`` milliseconds, or once."""
    made = qt.QTimer()
    made.setInterval(interval)
    made.setSingleShot(once)
    made.connect("timeout()", slot)
    return made


def put(table, row, column, text, *, check=None, warn=False, align=None, icon=None):
    """A read-only cell, with a tick box where ``check`` is given, or a picture where the path of one is."""
    item = qt.QTableWidgetItem(text)
    if icon is not None:
        item.setIcon(qt.QIcon(icon))
    item.setToolTip(text)
    item.setFlags(_CHECKABLE if check is not None else qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
    if check is not None:
        item.setCheckState(qt.Qt.Checked if check else qt.Qt.Unchecked)
    if warn:
        item.setForeground(qt.QBrush(qt.QColor(190, 60, 0)))
    if align is not None:
        item.setTextAlignment(align)
    table.setItem(row, column, item)


def fit(table, most=14):
    """As high as its rows, up to ``most``, and never lower than it was made: a list is seen at a glance."""
    least = _LEAST.setdefault(table.objectName, table.minimumHeight)
    rows = min(table.rowCount, most) * table.verticalHeader().defaultSectionSize
    table.setFixedHeight(max(least, rows + _FRAME))


def show_folder(folder):
    """Show a folder in the system's file manager."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))


def stretch(table, column, height=22):
    """Let a column take the room that the others leave; rows are as tight as Slicer's own tables."""
    header = table.horizontalHeader()
    for index in range(table.columnCount):
        mode = qt.QHeaderView.Stretch if index == column else qt.QHeaderView.ResizeToContents
        header.setSectionResizeMode(index, mode)
    header.setHighlightSections(False)
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(height)

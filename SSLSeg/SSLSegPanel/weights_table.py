# ruff: noqa: N802 - the names are those of Slicer and Qt
"""In section 2, Advanced: the weights on this computer, and deleting downloaded ones."""

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.children import aside
from SSLSegPanel.session import Stepper, show_error
from SSLSegPanel.widgets import enable, put, show_folder, stretch

__all__ = ["WeightsTable"]


class WeightsTable:
    """What takes up how much room, and one button to free it."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self.work = Stepper()
        self._installed = []
        stretch(ui.installedTable, 0)
        ui.installedTable.connect("itemSelectionChanged()", self.refresh)
        ui.deleteWeightsButton.connect("clicked(bool)", self.onDelete)
        ui.openWeightsButton.connect("clicked(bool)", self.onOpen)
        self.look()

    def look(self):
        """Look again what lies on this computer."""
        if self.session.usable:
            self.work.start(_listed(self.session.weights_folder), self._show)

    def refresh(self):
        """Enable what can be done, or say why not."""
        chosen = self._chosen()
        none = "" if chosen else _("Select weights in the table first.")
        busy = _("Wait until the work that is going on has ended.") if self.work.busy else ""
        whose = {
            "bundled": _("These weights come with SSLSeg."),
            "own": _("SSLSeg has not downloaded these: delete them by hand if nobody needs them."),
        }
        kept = whose.get(chosen.origin, "") if chosen else ""
        enable(self.ui.deleteWeightsButton, none or kept or busy)
        enable(self.ui.openWeightsButton, none)

    def _show(self, installed):
        self._installed = installed
        origins = {"bundled": _("SSLSeg"), "downloaded": _("download"), "own": _("own copy")}
        table = self.ui.installedTable
        table.setRowCount(len(installed))
        for row, each in enumerate(installed):
            put(table, row, 0, each.entry.name)
            table.item(row, 0).setToolTip(f"{each.entry.purpose}\n{each.location}")
            put(table, row, 1, size_text(each.size))
            put(table, row, 2, origins[each.origin])
        table.clearSelection()
        self.refresh()

    def _chosen(self):
        rows = [item.row() for item in list(self.ui.installedTable.selectedItems())]
        return self._installed[rows[0]] if rows and rows[0] < len(self._installed) else None

    def onDelete(self, checked=False):
        chosen = self._chosen()
        if chosen is None:
            return
        question = _("Delete {name} from this computer?\n\n{size} are freed in {folder}. They can be downloaded again.")
        asked = question.format(name=chosen.entry.name, size=size_text(chosen.size), folder=chosen.location.parent)
        if slicer.util.confirmYesNoDisplay(asked, _("Delete weights")):
            self.work.start(_deleted(chosen), self._gone, self._kept)
            self.refresh()

    def _gone(self, freed):
        self.look()
        self.session.parameters_changed.emit()  # a run with them cannot start now

    def _kept(self, error):
        self.look()
        show_error(error, _("The weights were not deleted."))

    def onOpen(self, checked=False):
        chosen = self._chosen()
        if chosen is not None:
            show_folder(chosen.location.parent)

    def close(self):
        """End what is still running."""
        self.work.stop()


def size_text(size):
    """Bytes as people say them."""
    return _("{n} GB").format(n=f"{size / 1e9:.1f}") if size >= 1e9 else _("{n} MB").format(n=f"{size / 1e6:.0f}")


def _listed(folder):
    from SSLSegLib.weights.removal import installed_weights

    return (yield from aside(installed_weights, folder or None))


def _deleted(chosen):
    from SSLSegLib.weights.removal import delete_weights

    return (yield from aside(delete_weights, chosen.entry.name, chosen.location.parent))

# ruff: noqa: N802 - the names are those of Slicer and Qt
"""In section 2, for VESSA: the template bank that a person keeps."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.bank import bank_state, bank_summary, grow_steps, read_bank_steps, remove_steps, sources
from SSLSegPanel.prepare import RunChoices
from SSLSegPanel.session import Stepper, set_setting, show_error
from SSLSegPanel.widgets import enable, put, show_folder, stretch

__all__ = ["BankSection"]

_ROW = 44  # pixels: a thumbnail and its frame
_AT_ONCE = 25  # rows that are filled between two looks at what the user does


class BankSection:
    """Folder, content and buttons of the bank."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self.work = Stepper()  # of its own: indexing takes a while, and results must not wait for it
        self._content, self._seen = None, None
        stretch(ui.bankTable, 1, _ROW)
        ui.bankEdit.setCurrentPath(session.bank)
        ui.bankEdit.connect("currentPathChanged(QString)", self.onFolder)
        ui.growBankButton.connect("clicked(bool)", self.onGrow)
        ui.removeTemplatesButton.connect("clicked(bool)", self.onRemove)
        ui.openBankButton.connect("clicked(bool)", self.onOpen)
        ui.bankTable.connect("itemSelectionChanged()", self.refresh)
        for signal in (session.cases_changed, session.results_changed, session.parameters_changed):
            signal.connect(self.refresh)
        self.look()

    # What is shown

    def look(self):
        """Look again what is in the folder."""
        self.work.stop()
        self._seen = bank_state(self.session.bank)
        if not self.session.usable or not self.session.bank:
            self._show(None)
            return
        self.work.start(read_bank_steps(self.session.bank), self._show, self._unreadable)

    def refresh(self):
        """Enable what can be done, or say why not; look again where the files are others than before."""
        parameters = self.session.parameters
        shown = parameters is not None and parameters.method == "vessa"
        self.ui.bankBox.setVisible(shown)
        if shown and self.session.bank and not self.work.busy and self._seen != bank_state(self.session.bank):
            self.look()
            return
        folder, busy = self.session.bank, _("Wait until the bank has been written.") if self.work.busy else ""
        nowhere = "" if folder else _("Name a folder for the bank first.")
        none = "" if sources(self.session.cases) else _("No case of the scene is labelled, accepted or corrected.")
        if self.session.compute_missing:
            none = _("Install what is missing in 7. Set-up.")
        enable(self.ui.growBankButton, busy or nowhere or none)
        chosen = "" if self._chosen() else _("Select templates in the table first.")
        enable(self.ui.removeTemplatesButton, busy or chosen)
        there = "" if folder and Path(folder).is_dir() else _("There is no such folder yet.")
        enable(self.ui.openBankButton, nowhere or there)

    def _show(self, content, problem=""):
        self._content = content
        count = len(content.templates) if content is not None else 0
        self.ui.bankTable.setRowCount(0)
        self.ui.bankTable.setRowCount(count)
        if content is not None:
            problem = content.problem
            self.ui.bankLabel.text = problem or bank_summary(content)
            self.ui.bankLabel.toolTip = _("Indexed by: {features}").format(features=content.features)
            self.work.start(self._fill_steps(content), lambda nothing: self.refresh())
        elif self.session.bank:
            self.ui.bankLabel.text = problem or _("The bank is empty: add the cases of this scene.")
        else:
            self.ui.bankLabel.text = _("Each run makes a bank of its labelled cases.")
        if self.session.bank_problem != problem:
            self.session.bank_problem = problem
            self.session.parameters_changed.emit()  # a run must wait, or need not any longer
        self.refresh()

    def _fill_steps(self, content):
        from SSLSegLib.vessa.bank_files import picture_path

        origins = {"label": _("drawn"), "accepted": _("accepted")}
        for row, template in enumerate(content.templates):
            damage = content.damaged.get(template.id, "")
            icon = str(picture_path(self.session.bank, template))
            put(self.ui.bankTable, row, 0, template.id, icon=icon, warn=bool(damage))
            if damage:
                self.ui.bankTable.item(row, 0).setToolTip(damage)
            put(self.ui.bankTable, row, 1, ", ".join(template.targets))
            put(self.ui.bankTable, row, 2, origins[template.origin])
            if row % _AT_ONCE == 0:
                yield

    def _unreadable(self, error):
        self._show(None, str(error))

    def _chosen(self):
        """The ids of the selected templates."""
        if self._content is None:
            return []
        rows = sorted({item.row() for item in list(self.ui.bankTable.selectedItems())})
        return [self._content.templates[row].id for row in rows if row < len(self._content.templates)]

    # What the user does

    def onFolder(self, path):
        set_setting("BankFolder", path)
        self.look()
        self.session.parameters_changed.emit()

    def onGrow(self, checked=False):
        try:
            choices = RunChoices.from_parameters(self.session.parameters, device=self.session.device)
            choices.weights = self.session.logic.weightsPath(choices.weights, self.session.weights_folder)
        except Exception as error:
            show_error(error, _("The cases could not be added."))
            return
        self._start(grow_steps(self.session.cases, choices, self.session.bank), _("The cases could not be added."))

    def onRemove(self, checked=False):
        chosen = self._chosen()
        question = _("Take {n} templates out of the bank? Their files are deleted; the scans stay as they are.")
        if chosen and slicer.util.confirmYesNoDisplay(question.format(n=len(chosen)), _("Template bank")):
            self._start(remove_steps(self.session.bank, chosen), _("The templates could not be removed."))

    def onOpen(self, checked=False):
        show_folder(self.session.bank)

    def _start(self, steps, problem):
        def failed(error):
            self.look()
            show_error(error, problem)

        def done(content):
            self._seen = bank_state(self.session.bank)
            self._show(content)
            self.session.parameters_changed.emit()  # a run that waited for templates can start now

        self.work.start(steps, done, failed, said=self._said)
        self.refresh()

    def _said(self, text):
        self.ui.bankLabel.text = text

    def close(self):
        """End what is still running."""
        self.work.stop()

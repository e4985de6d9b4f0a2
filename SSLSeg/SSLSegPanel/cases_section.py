# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 1: which scans there are, what each is used for, and which segments are classes."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel.casenodes import ROLES, role_label
from SSLSegPanel.review import review_state, state_label
from SSLSegPanel.segment_classes import segment_names, segments_in_pieces
from SSLSegPanel.session import show_error
from SSLSegPanel.widgets import enable, fit, put, stretch

__all__ = ["CasesSection"]


class CasesSection:
    """The table of cases, the role and segmentation of the selected ones, the table of classes."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self._filling = False
        self._shown = []  # ids of the cases in the table's rows
        self._loading = None  # steps that add cases
        for role in ROLES:
            ui.roleBox.addItem(role_label(role), role)
        stretch(ui.casesTable, 3)
        stretch(ui.classesTable, 0)
        self._menu = qt.QMenu(ui.addButton)
        self._menu.connect("aboutToShow()", self._fill_menu)
        self._fill_menu()
        ui.addButton.setMenu(self._menu)
        ui.removeButton.connect("clicked(bool)", self.onRemove)
        ui.casesTable.connect("itemSelectionChanged()", self.onSelection)
        ui.roleBox.connect("activated(int)", self.onRole)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onSegmentation)
        ui.classesTable.connect("itemChanged(QTableWidgetItem*)", self.onClass)
        session.cases_changed.connect(self.refresh)
        session.results_changed.connect(self.refresh)

    # What is shown

    def refresh(self):
        """Show the cases as they are in the scene now, keeping the selection."""
        chosen = {case.id for case in self.selected()}
        cases = list(self.session.cases)
        self._filling = True
        table = self.ui.casesTable
        table.setRowCount(len(cases))
        self._shown = [case.id for case in cases]
        for row, case in enumerate(cases):
            problem = case.problem()
            status = problem or self._status(case)
            count = case.segmentation.GetSegmentation().GetNumberOfSegments() if case.segmentation else 0
            segments = (
                (_("1 segment") if count == 1 else _("{n} segments").format(n=count)) if case.segmentation else ""
            )
            for column, text in enumerate((case.name, role_label(case.role), segments, status)):
                put(table, row, column, text, warn=bool(problem) and column == 3)
            table.item(row, 0).setToolTip(self._details(case))
            if case.segmentation:
                table.item(row, 2).setToolTip(case.segmentation.GetName())
        table.clearSelection()
        for row, identifier in enumerate(self._shown):
            if identifier in chosen:
                for column in range(4):
                    table.item(row, column).setSelected(True)
        fit(table)
        self._filling = False
        self._show_summary(cases)
        self._show_classes(cases)
        self._show_selected()

    def selected(self):
        """The cases of the selected rows."""
        rows = sorted({item.row() for item in list(self.ui.casesTable.selectedItems())})
        found = [self.session.cases.find(self._shown[row]) for row in rows if row < len(self._shown)]
        return [case for case in found if case is not None]

    def _status(self, case):
        """What is known of a case that has no problem: its review, or its size in voxels."""
        if case.result:
            return state_label(review_state(case.result))
        if case.volume is None or case.volume.GetImageData() is None:  # an ignored case is not looked at
            return ""
        size = "×".join(map(str, case.volume.GetImageData().GetDimensions()))
        count = len(case.volumes)
        return size if count == 1 else _("{size}, {n} channels").format(size=size, n=count)

    def _details(self, case):
        """The tooltip of a case's row."""
        if case.volume is None:
            return ""
        spacing = "×".join(f"{size:.3g}" for size in case.volume.GetSpacing())
        return _("{name} ({id}), voxels of {spacing} mm").format(name=case.name, id=case.id, spacing=spacing)

    def _show_summary(self, cases):
        counts = [(role, sum(case.role == role for case in cases)) for role in ROLES]
        text = ", ".join(f"{count} {role_label(role).lower()}" for role, count in counts if count)
        self.ui.casesSummary.text = text or _("No cases yet")

    def _show_classes(self, cases):
        parameters = self.session.parameters
        self._filling = True
        table = self.ui.classesTable
        names = segment_names(cases) if parameters else {}
        # Plain copies: the dictionaries of Slicer's parameter nodes have a get() without a default.
        ignored, paired = (
            (dict(parameters.ignoredSegments), dict(parameters.pairedSegments)) if parameters else ({}, {})
        )
        in_pieces = segments_in_pieces(cases) if names else {}
        labelled = sum(case.role == "labelled" for case in cases)
        table.setRowCount(len(names))
        for row, (name, count) in enumerate(names.items()):
            used = not ignored.get(name, False)
            put(table, row, 0, name, check=used)
            put(table, row, 1, "", check=not paired.get(name, in_pieces.get(name, False)))
            put(table, row, 2, _("{n} of {all}").format(n=count, all=labelled))
        fit(table)
        self._filling = False

    def _show_selected(self):
        cases = self.selected()
        nothing = "" if cases else _("Select cases in the table first.")
        enable(self.ui.removeButton, nothing)
        enable(self.ui.roleBox, nothing)
        one = cases[0] if len(cases) == 1 else None
        alone = one is not None and one.role == "labelled"
        enable(self.ui.segmentationSelector, "" if alone else _("Select one labelled case first."))
        self._filling = True
        self.ui.segmentationSelector.setCurrentNode(one.segmentation if one else None)
        if cases:
            self.ui.roleBox.setCurrentIndex(ROLES.index(cases[0].role))
        self._filling = False

    # What the user does

    def onSelection(self):
        if self._filling:
            return
        self._show_selected()
        cases = self.selected()
        if len(cases) == 1 and cases[0].volume is not None:
            self.session.logic.showCase(cases[0], self.session.parameters.overlayOpacity)

    def onRole(self, index):
        for case in self.selected():
            case.role = ROLES[index]
        self.session.cases_changed.emit()

    def onSegmentation(self, node=None):
        cases = self.selected()
        if self._filling or len(cases) != 1 or cases[0].role != "labelled":
            return
        cases[0].segmentation = node
        self.session.cases_changed.emit()

    def onClass(self, item):
        if self._filling:
            return
        name = self.ui.classesTable.item(item.row(), 0).text()
        checked = item.checkState() == qt.Qt.Checked
        if item.column() == 0:
            self.session.parameters.ignoredSegments[name] = not checked
        else:
            self.session.parameters.pairedSegments[name] = not checked
        self.session.parameters_changed.emit()

    def onRemove(self, checked=False):
        cases = self.session.cases
        for case in self.selected():
            cases.remove(case)
        self.session.cases_changed.emit()

    def _fill_menu(self):
        self._menu.clear()
        for text, slot in (
            (_("All volumes of the scene"), self.onAddScene),
            (_("Folder of images and labels…"), self.onAddFolder),
            (_("Cohort file (cohort.json)…"), self.onAddCohort),
            (_("Sample data: generated abdomens"), self.onAddSample),
        ):
            self._menu.addAction(text).connect("triggered(bool)", slot)
        chosen = self.selected()
        if len(chosen) > 1:
            text = _("Join the {n} selected cases: channels of one image").format(n=len(chosen))
            self._menu.addAction(text).connect("triggered(bool)", self.onJoin)
        for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
            action = self._menu.addAction(_("Frames of “{name}”").format(name=node.GetName()))
            action.connect("triggered(bool)", lambda checked=False, node=node: self.onAddSequence(node))

    def onAddScene(self, checked=False):
        self.session.logic.addVolumesOfScene()
        self.session.cases_changed.emit()

    def onJoin(self, checked=False):
        """The selected cases are one: their volumes are its channels, in the order of the table."""
        self.session.cases.join(self.selected())
        self.session.cases_changed.emit()

    def onAddFolder(self, checked=False):
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder with images/ and labels/"))
        if folder:
            self.load(folder)

    def onAddCohort(self, checked=False):
        chosen = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Cohort"), "", _("Cohort") + " (*.json)")
        path = chosen if isinstance(chosen, str) else chosen[0]  # PythonQt gives text, other bindings a pair
        if path:
            self.load(path)

    def onAddSample(self, checked=False):
        self._load(self.session.logic.sampleSteps())

    def onAddSequence(self, node):
        self._load(self.session.logic.addSequenceSteps(node))

    def load(self, path):
        """Load a cohort file, or what lies in a folder, case by case."""
        self._load(self.session.logic.loadSteps(Path(path)))

    def _load(self, steps):
        def done(cases):
            self.ui.addButton.enabled = True
            self.session.cases_changed.emit()
            if cases:
                self.session.logic.showCase(cases[0], self.session.parameters.overlayOpacity)

        def failed(error):
            self.ui.addButton.enabled = True
            self.session.cases_changed.emit()
            show_error(error, _("The cases could not be loaded."))

        self.ui.addButton.enabled = False
        self._loading = steps
        self.session.stepper.start(steps, done, failed, said=self._said)

    def onSceneClose(self):
        """The scene goes: what is being loaded is not wanted in the next one."""
        if self._loading is not None and self.session.stepper.drop(self._loading):
            self.ui.addButton.enabled = True
        self._loading = None

    def _said(self, text):
        self.ui.casesSummary.text = text

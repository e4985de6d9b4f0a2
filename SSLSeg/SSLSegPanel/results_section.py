# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 4: results by falling uncertainty; look, then accept, correct, reject or revert."""

import math

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel import review
from SSLSegPanel.edits import EditWatch
from SSLSegPanel.publish import SHOWN_ABOVE
from SSLSegPanel.session import Stepper, show_error
from SSLSegPanel.surfaces import has_surface, surface_steps
from SSLSegPanel.widgets import enable, fit, put, stretch, tell, timer

__all__ = ["ResultsSection"]


class ResultsSection:
    """The review queue."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self._filling = False
        self.steps = Stepper()  # of its own: what is being prepared for a run may take its time
        self._working = False  # a label is being written or read: it is not to be decided on meanwhile
        self._surfaces = {}  # segmentation node -> the steps that make its surface
        self._shown, self._current = [], None
        self._slices, self._position = [], -1
        self._shortcuts = []
        self._edits = EditWatch(self.onDrawn)
        self._drawn = timer(0, session.results_changed.emit, once=True)  # not in the midst of a stroke
        stretch(ui.resultsTable, 0)
        ui.scaleLabel.text = scale_text()
        ui.resultsTable.connect("itemSelectionChanged()", self.onSelection)
        for button, slot in (
            (ui.acceptButton, self.onAccept),
            (ui.correctButton, self.onCorrect),
            (ui.rejectButton, self.onReject),
            (ui.revertButton, self.onRevert),
            (ui.nextSliceButton, self.onNextSlice),
            (ui.previousSliceButton, self.onPreviousSlice),
            (ui.promoteButton, self.onPromote),
        ):
            button.connect("clicked(bool)", slot)
        ui.show3DButton.connect("toggled(bool)", self.onShow3D)
        ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        session.results_changed.connect(self.refresh)
        session.cases_changed.connect(self.refresh)

    # What is shown

    def refresh(self):
        """Show the results of the scene, the ones to look at first on top."""
        cases = self.session.logic.resultsByUncertainty(self.session.cases) if self.session.usable else []
        self._shown = [case.id for case, scores in cases]
        self._filling = True
        table = self.ui.resultsTable
        table.setRowCount(len(cases))
        for row, (case, scores) in enumerate(cases):
            expected = scores.mean_expected_dice if scores else None
            certainty = (
                _("nothing found") if scores and scores.empty else "–" if expected is None else f"{expected:.2f}"
            )
            volume = sum(scores.volume_ml.values()) if scores else None
            put(table, row, 0, case.name)
            put(table, row, 1, certainty, align=qt.Qt.AlignCenter)
            table.item(row, 1).setToolTip(self._expected_in_words(scores))
            put(table, row, 2, f"{volume:.0f} ml" if volume is not None else "–", align=qt.Qt.AlignCenter)
            put(table, row, 3, review.state_label(review.review_state(case.result)))
        fit(table)
        table.clearSelection()
        if self._current in self._shown:
            table.selectRow(self._shown.index(self._current))
        else:
            self._current = None
        self._filling = False
        # A case that teaches by now is drawn on like any other of its kind.
        self._edits.follow(case.result for case, scores in cases if case.role != "labelled")
        self._show_buttons()

    @staticmethod
    def _expected_in_words(scores):
        each = [f"{name} {value:.2f}" for name, value in scores.expected_dice.items()] if scores else []
        means = _("The overlap with the true label to expect from the method's own probabilities; 1 is certain.")
        return "\n".join([means, *each])

    def current(self):
        """The case that is being reviewed, or None."""
        case = self.session.cases.find(self._current) if self._current else None
        return case if case is not None and case.result is not None else None

    def _show_buttons(self):
        case = self.current()
        state = review.review_state(case.result) if case else ""
        nothing = "" if case else _("Select a finished case in the table first.")
        if self._working:
            nothing = _("Wait until the label has been written or read.")
        editing = _("Keep the correction first, or revert it.") if state == "editing" else ""
        for button in (self.ui.acceptButton, self.ui.rejectButton):
            enable(button, nothing or editing)
        enable(self.ui.correctButton, nothing)
        self.ui.correctButton.text = _("Keep correction") if state == "editing" else _("Correct")
        same = _("There is nothing to undo: this is the method's own label.") if state == "unreviewed" else ""
        enable(self.ui.revertButton, nothing or same)
        enable(self.ui.show3DButton, nothing)
        no_map = "" if case is None or case.uncertainty else _("This case has no uncertainty map.")
        for button in (self.ui.nextSliceButton, self.ui.previousSliceButton):
            enable(button, nothing or no_map)
        cases = [case for case in self.session.cases if case.result is not None]
        reviewed = [case for case in cases if review.review_state(case.result) in ("accepted", "corrected")]
        ready = any(case.role == "unlabelled" for case in reviewed)
        enable(self.ui.promoteButton, "" if ready else _("Accept or correct a case first."))

    def show(self, case):
        """Show a case: its scan, its label, where it is uncertain, and its most uncertain slice."""
        self._current = case.id
        self.session.logic.showCase(case, self.session.parameters.overlayOpacity)
        self._slices = review.uncertain_slices(case.uncertainty) if case.uncertainty else []
        self._position = -1
        self.ui.nextSliceButton.text = _("Next uncertain slice ▶")
        self._filling = True
        self.ui.show3DButton.setChecked(
            bool(case.result.GetDisplayNode().GetVisibility3D()) and has_surface(case.result)
        )
        self._filling = False
        if self._slices:
            self.onNextSlice()
        self._show_buttons()

    # What the user does

    def onSelection(self):
        if self._filling:
            return
        rows = [item.row() for item in list(self.ui.resultsTable.selectedItems())]
        case = self.session.cases.find(self._shown[rows[0]]) if rows else None
        if case is not None and case.result is not None:
            with slicer.util.tryWithErrorDisplay(_("The case could not be shown.")):
                self.show(case)

    def onAccept(self, checked=False):
        case = self.current()
        if case is not None and case.result.GetAttribute("SSLSeg.Round") and not self._working:
            self._work(review.accept_steps(case), self._go_on, _("The decision could not be kept."))
        else:
            self._decide(review.accept)

    def onReject(self, checked=False):
        self._decide(review.reject)

    def _decide(self, decide):
        case = self.current()
        if case is None or self._working or review.review_state(case.result) == "editing":
            return
        with slicer.util.tryWithErrorDisplay(_("The decision could not be kept.")):
            decide(case)
            self._go_on()

    def onCorrect(self, checked=False):
        case = self.current()
        if case is None or self._working:
            return
        if review.review_state(case.result) == "editing":
            steps = review.finish_correction_steps(case)
            self._work(steps, self._go_on, _("The correction could not be kept."))
            return
        with slicer.util.tryWithErrorDisplay(_("The correction could not be begun.")):
            review.begin_correction(case)
            self.session.results_changed.emit()
            open_segment_editor(case)

    def onDrawn(self, node):
        """Somebody draws on a result, by whatever module: from now on it is being corrected."""
        review.begin_correction_of(node)
        self._drawn.start()

    def onRevert(self, checked=False):
        case = self.current()
        if case is None or self._working:
            return
        if review.review_state(case.result) in ("editing", "corrected"):
            question = _("Put the method's own label of {name} back? What was drawn on it since is lost.")
            if not slicer.util.confirmYesNoDisplay(question.format(name=case.name), _("Revert")):
                return

        def done():
            self.session.results_changed.emit()
            if case.result is not None and self._current == case.id:
                self.show(case)

        self._work(review.revert_steps(case), done, _("The label of the method could not be put back."))

    def _work(self, steps, done, problem):
        """Run steps on the current case; its buttons wait for them."""

        def ended(value=None):
            self._working = False
            done()
            self._show_buttons()

        def failed(error):
            self._working = False
            self.session.results_changed.emit()
            show_error(error, problem)

        self._working = True
        self._show_buttons()
        self.steps.start(steps, ended, failed)

    def onNextSlice(self, checked=False):
        self._step(1)

    def onPreviousSlice(self, checked=False):
        self._step(-1)

    def _step(self, by):
        if not self._slices:
            return
        self._position = min(max(self._position + by, 0), len(self._slices) - 1)
        _slice, (r, a, s) = self._slices[self._position]
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, r, a, s)
        self.ui.nextSliceButton.text = _("Next uncertain slice ▶ {n}/{all}").format(
            n=self._position + 1, all=len(self._slices)
        )

    def onShow3D(self, checked=False):
        case = self.current()
        if case is None or self._filling:
            return
        node = case.result
        self._stop_surface(node)
        if not checked:
            node.GetDisplayNode().SetVisibility3D(False)
            return

        def done(nothing):
            self._surfaces.pop(node, None)
            if self.current() is not None and self.current().result is node and self.ui.show3DButton.checked:
                node.GetDisplayNode().SetVisibility3D(True)
                self.session.logic.centre3D()

        def failed(error):
            self._surfaces.pop(node, None)
            show_error(error, _("The surface could not be made."))

        self._surfaces[node] = surface_steps(node)
        self.steps.start(self._surfaces[node], done, failed)

    def _stop_surface(self, node):
        """Give up the surface that is being made of a segmentation, if one is."""
        steps = self._surfaces.pop(node, None)
        if steps is not None:
            self.steps.drop(steps)

    def onOpacity(self, value):
        case = self.current()
        if case is not None and case.uncertainty is not None and self.session.parameters is not None:
            slicer.util.setSliceViewerLayers(foregroundOpacity=value)

    def onPromote(self, checked=False):
        for case in self.session.cases:
            if case.role != "unlabelled" or case.result is None:
                continue
            if review.review_state(case.result) in ("accepted", "corrected"):
                case.role = "labelled"
                case.segmentation = case.result
        self.session.cases_changed.emit()

    def _go_on(self):
        """After a decision: the next case that waits for one; none left is a good end, no error."""
        self.session.results_changed.emit()
        for identifier in self._shown:
            case = self.session.cases.find(identifier)
            if case is not None and case.result and review.review_state(case.result) == "unreviewed":
                self.show(case)
                self.refresh()
                return
        tell(self.ui.statusLabel, _("All results are reviewed."))

    def onSceneClose(self):
        """Surfaces of what is going are not wanted any more; a label that is being written still is."""
        for node in list(self._surfaces):
            self._stop_surface(node)
        self._filling = True
        self.ui.show3DButton.setChecked(False)
        self._filling = False

    def close(self):
        """End what is still running."""
        self.steps.stop()
        self._drawn.stop()
        self._edits.stop()
        self._surfaces = {}

    # Shortcuts, only while the module is shown

    def enter(self):
        window = slicer.util.mainWindow()
        if window is None or self._shortcuts:
            return
        for keys, slot in (
            ("Ctrl+Shift+A", self.onAccept),
            ("Ctrl+Shift+E", self.onCorrect),
            ("Ctrl+Shift+R", self.onReject),
            ("Ctrl+Shift+N", self.onNextSlice),
            ("Ctrl+Shift+P", self.onPreviousSlice),
        ):
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(keys))
            shortcut.connect("activated()", slot)
            self._shortcuts.append(shortcut)

    def exit(self):
        for shortcut in self._shortcuts:
            shortcut.disconnect("activated()")
            shortcut.setParent(None)
        self._shortcuts = []


def open_segment_editor(case):
    """Slicer's own editor on the result, with the scan it belongs to."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(case.result)
    editor.setSourceVolumeNode(case.volume)


def scale_text():
    """What the colours of the overlay mean, on the scale of every case."""
    steps = ((SHOWN_ABOVE, "#5a0c66"), (0.3, "#a52b5b"), (0.5, "#ec7720"), (0.69, "#fcfcb3"))
    patch = '<span style="background:{color}">&nbsp;&nbsp;&nbsp;&nbsp;&nbsp;</span> {value:g}'
    colors = " ".join(patch.format(color=color, value=value) for value, color in steps)
    return _("Entropy {colors}; {most} is a coin toss, below {least} nothing is drawn").format(
        colors=colors, most=f"{math.log(2):.2f}", least=SHOWN_ABOVE
    )

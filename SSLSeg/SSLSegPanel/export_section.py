# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 6: reviewed results as files, and the refined model on other volumes."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel.export import ExportChoices, export_steps
from SSLSegPanel.session import Stepper, set_setting, setting, show_error
from SSLSegPanel.widgets import tell

__all__ = ["ExportSection"]


class ExportSection:
    """What is written where."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self.children = Stepper()  # of its own: a model may take minutes, and results must not wait for it
        tell(ui.exportLabel, "")
        ui.exportEdit.setCurrentPath(setting("ExportFolder", str(Path.home() / "SSLSeg" / "export")))
        ui.exportEdit.connect("currentPathChanged(QString)", lambda path: set_setting("ExportFolder", path))
        ui.exportButton.connect("clicked(bool)", self.onExport)
        ui.exportModelButton.connect("clicked(bool)", self.onExportModel)
        ui.applyModelButton.connect("clicked(bool)", self.onApplyModel)
        ui.exportCasesBox.connect("currentIndexChanged(int)", self.refresh)
        ui.applyVolumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.refresh)
        for signal in (session.cases_changed, session.results_changed, session.run_changed):
            signal.connect(self.refresh)

    def refresh(self, *arguments):
        """Enable what can be done, or say why not."""
        count = len(self._choices().cases(self.session.cases))
        self.ui.exportButton.enabled = bool(count)
        self.ui.exportButton.text = (
            _("Export {n} cases").format(n=count) if count > 1 else _("Export 1 case") if count else _("Export")
        )
        self.ui.exportButton.toolTip = (
            _("Write the chosen files")
            if count
            else _("No case is {which} yet").format(which=self.ui.exportCasesBox.currentText)
        )
        model = self.session.logic.trainedModel(self.session.run)
        missing = _("There is no model yet: refine by self-training first (5. Refine).") if model is None else ""
        free = not missing and not self.children.busy
        self.ui.exportModelButton.enabled = free
        self.ui.exportModelButton.toolTip = missing or _("Write the model of {round} as an nnU-Net folder").format(
            round=model
        )
        volumes = self._volumes()
        self.ui.applyModelButton.enabled = free and bool(volumes)
        self.ui.applyModelButton.toolTip = (
            missing
            or (_("Choose a volume, or give cases the role test in 1. Cases") if not volumes else "")
            or _("Segment {n} volumes with the model of {round}").format(n=len(volumes), round=model)
        )

    def _volumes(self):
        """What the model is applied to: the chosen volume, else the test cases."""
        chosen = self.ui.applyVolumeSelector.currentNode()
        if chosen is not None:
            case = self.session.cases.of_volume(chosen)
            return [case.volumes if case is not None else [chosen]]
        return [case.volumes for case in self.session.cases.with_role("test") if case.volume is not None]

    def _choices(self):
        return ExportChoices(
            folder=Path(self.ui.exportEdit.currentPath or "."),
            accepted_only=self.ui.exportCasesBox.currentIndex == 0,
            nifti=self.ui.exportNiftiBox.checked,
            segmentation=self.ui.exportSegBox.checked,
            dicom=self.ui.exportDicomBox.checked,
            manifest=self.ui.exportManifestBox.checked,
        )

    def onExport(self, checked=False):
        def done(written):
            self.ui.exportButton.enabled = True
            tell(self.ui.exportLabel, _("{n} files in {folder}").format(n=len(written), folder=choices.folder))

        def failed(error):
            self.ui.exportButton.enabled = True
            tell(self.ui.exportLabel, "")
            show_error(error, _("The export did not finish."))

        choices = self._choices()
        self.ui.exportButton.enabled = False
        self.session.stepper.start(export_steps(self.session.cases, choices), done, failed, said=self._said)

    def _said(self, text):
        tell(self.ui.exportLabel, text)

    def onExportModel(self, checked=False):
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder for the nnU-Net model"))
        if folder:
            self.exportModel(folder)

    def exportModel(self, folder):
        """Write the model into a folder."""
        self._work(
            self.session.logic.exportModelSteps(self.session.run, folder),
            _("Writing the model …"),
            lambda path: _("The model is in {path}").format(path=path),
            _("The model could not be exported."),
        )

    def onApplyModel(self, checked=False):
        self._work(
            self.session.logic.applyModelSteps(self.session.run, self._volumes()),
            _("Starting …"),
            lambda nodes: _("Added: {names}").format(names=", ".join(node.GetName() for node in nodes)),
            _("The model could not be applied."),
        )

    def _work(self, steps, doing, told, problem):
        """Run steps that wait for a child; the buttons wait with them."""

        def done(value):
            self.refresh()
            tell(self.ui.exportLabel, told(value))

        def failed(error):
            self.refresh()
            tell(self.ui.exportLabel, "")
            show_error(error, problem)

        self.ui.exportModelButton.enabled = self.ui.applyModelButton.enabled = False
        tell(self.ui.exportLabel, doing)
        self.children.start(steps, done, failed, said=self._said)

    def close(self):
        """End what is still running."""
        self.children.stop()

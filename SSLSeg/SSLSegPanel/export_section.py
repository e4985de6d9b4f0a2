# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 6: reviewed results as files, and the refined model on other volumes."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel.export import ExportChoices, export_steps
from SSLSegPanel.session import set_setting, setting, show_error

__all__ = ["ExportSection"]


class ExportSection:
    """What is written where."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
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
        self.ui.exportButton.text = _("Export {n} cases").format(n=count) if count else _("Export")
        self.ui.exportButton.toolTip = (
            _("Write the chosen files")
            if count
            else _("No case is {which} yet").format(which=self.ui.exportCasesBox.currentText)
        )
        model = self.session.logic.trainedModel(self.session.run)
        self.ui.exportModelButton.enabled = model is not None
        volume = self.ui.applyVolumeSelector.currentNode()
        self.ui.applyModelButton.enabled = model is not None and volume is not None
        self.ui.applyModelButton.toolTip = (
            _("There is no model yet: refine first (section 5).") if model is None else _("Segment the chosen volume")
        )

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
            self.ui.exportLabel.text = _("{n} files in {folder}").format(n=len(written), folder=choices.folder)

        def failed(error):
            self.ui.exportButton.enabled = True
            self.ui.exportLabel.text = ""
            show_error(error, _("The export did not finish."))

        choices = self._choices()
        self.ui.exportButton.enabled = False
        self.session.stepper.start(export_steps(self.session.cases, choices), done, failed, said=self._said)

    def _said(self, text):
        self.ui.exportLabel.text = text

    def onExportModel(self, checked=False):
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder for the nnU-Net model"))
        if folder:
            with slicer.util.tryWithErrorDisplay(_("The model could not be exported."), waitCursor=True):
                path = self.session.logic.exportModel(self.session.run, folder)
                self.ui.exportLabel.text = str(path)

    def onApplyModel(self, checked=False):
        volume = self.ui.applyVolumeSelector.currentNode()

        def done(node):
            self.ui.exportLabel.text = _("“{name}” was added.").format(name=node.GetName())
            self.refresh()

        def failed(error):
            self.refresh()
            show_error(error, _("The model could not be applied."))

        self.ui.applyModelButton.enabled = False
        self.ui.exportLabel.text = _("Segmenting “{name}” …").format(name=volume.GetName())
        self.session.stepper.start(self.session.logic.applyModelSteps(self.session.run, volume), done, failed)

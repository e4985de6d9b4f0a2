# ruff: noqa: N802 - the names are those of Slicer and Qt
"""SSLSeg for 3D Slicer: a few labelled scans and many unlabelled ones become labels for all, and a model."""

import sys
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, SSLSegLib lies beside this file; in the repository, one folder up, where Slicer does not look.
_HERE = Path(__file__).resolve().parent
LIBRARY = _HERE if (_HERE / "SSLSegLib").is_dir() else _HERE.parent
for _folder in (_HERE, LIBRARY):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from SSLSegPanel.panel_logic import PanelLogic  # noqa: E402 - found by the paths above
from SSLSegPanel.phases import ThreePhases  # noqa: E402


class SSLSeg(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SSLSeg: semi-supervised segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The SSLSeg developers"]
        self.parent.helpText = _(
            "A few labelled scans and many unlabelled ones: SSLSeg segments them all, shows where it is unsure, lets "
            "you accept or correct each label, and trains a model from them. For research, not for clinical use. "
            'See the <a href="https://github.com/sslseg/SSLSeg#readme">user guide</a>.'
        )
        self.parent.acknowledgementText = _(
            "Methods: SSL-MedSAM2 (training-free few-shot segmentation with MedSAM2 and self-training with nnU-Net); "
            "SAM 2 by Meta AI; nnU-Net by DKFZ."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """One click in the Sample Data module: scans that are generated here, with no download."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SSLSeg",
        sampleName="SSLSegPhantom",
        thumbnailFileName=str(_HERE / "Resources" / "Icons" / "SSLSegPhantom.png"),
        customDownloader=lambda source: SSLSegLogic().loadSampleData(),
    )


class SSLSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: loads the .ui, composes the sections, and tells them when the scene changes."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.session = None
        self.sections = []
        self._guiTag = None

    def setup(self):
        import ctk
        import qt
        from SSLSegPanel.cases_section import CasesSection
        from SSLSegPanel.export_section import ExportSection
        from SSLSegPanel.method_section import MethodSection
        from SSLSegPanel.refine_section import RefineSection
        from SSLSegPanel.results_section import ResultsSection
        from SSLSegPanel.run_section import RunSection
        from SSLSegPanel.session import Session, warm_steps
        from SSLSegPanel.setup_section import SetupSection

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SSLSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        for section in (self.ui.methodSection, self.ui.refineSection, self.ui.exportSection):
            section.collapsed = True
        for section in (self.ui.advancedBox, self.ui.bankBox):
            section.collapsed = True
        for edit in (
            self.ui.outputEdit,
            self.ui.weightsFolderEdit,
            self.ui.attachEdit,
            self.ui.exportEdit,
            self.ui.bankEdit,
        ):
            edit.filters = ctk.ctkPathLineEdit.Dirs
        self.logic = SSLSegLogic()
        self.session = Session(self.logic)
        self.casesSection = CasesSection(self.ui, self.session)
        self.methodSection = MethodSection(self.ui, self.session)
        self.runSection = RunSection(self.ui, self.session)
        self.resultsSection = ResultsSection(self.ui, self.session)
        self.refineSection = RefineSection(self.ui, self.session)
        self.exportSection = ExportSection(self.ui, self.session)
        self.setupSection = SetupSection(self.ui, self.session)
        self.refineSection.attached = self.attach
        self.sections = [
            self.casesSection,
            self.methodSection,
            self.runSection,
            self.resultsSection,
            self.refineSection,
            self.exportSection,
            self.setupSection,
        ]
        # Many nodes come and go at once; the tables follow once, when it is quiet.
        self._quiet = qt.QTimer()
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(50)
        self._quiet.connect("timeout()", self.refresh)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeAddedEvent, self.onSceneChanged)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onSceneChanged)
        self.initializeParameterNode()
        if self.session.usable:
            self.session.stepper.start(warm_steps(), failed=lambda error: None)  # the click that needs it will tell
        self.ui.setupSection.collapsed = not (self.session.light_missing or self.session.compute_missing)

    def cleanup(self):
        if self.sections:  # empty where setup has failed
            self._quiet.stop()
            for section in self.sections:
                if hasattr(section, "close"):
                    section.close()
            self.resultsSection.exit()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()
        self.resultsSection.enter()

    def exit(self):
        self.resultsSection.exit()
        self.untie()  # a run or a loading goes on and asks for the parameters, so the session keeps them

    # The scene

    def onSceneStartClose(self, caller, event):
        self.runSection.onSceneClose()
        self.casesSection.onSceneClose()
        self.resultsSection.onSceneClose()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()
        else:  # enter() ties the widgets; until then a run may end
            self.session.parameters = self.logic.getParameterNode()

    def onSceneEndImport(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()  # its values have come from the file

    def onSceneChanged(self, caller, event):
        if self.session.parameters is not None:
            self._quiet.start()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def untie(self):
        """Let the widgets and the scene's parameters go their own ways."""
        if self._guiTag is not None:
            self.session.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.session.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
            self._guiTag = None

    def setParameterNode(self, parameters):
        """Tie the widgets to the scene's parameters, or untie them (None)."""
        if self.session is None:
            return
        self.untie()
        self.session.parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
            self.refresh()
            self.takeUpRun()

    def takeUpRun(self):
        """Know the run and the training that the scene's results come from, and follow them where they still run.

        What is being followed stays, also when the scene is closed: it must be possible to cancel it.
        """
        parameters, known = self.session.parameters, self.session.run
        if self.runSection.state == "idle" and parameters.jobFolder != (str(known.job.folder) if known else ""):
            run = self.session.run = self.openJob(parameters.jobFolder)
            if run is not None and run.running:
                self.runSection.watch(run)
            self.session.run_changed.emit()
        training = self.refineSection.training
        if not self.refineSection.running and parameters.trainingFolder != (
            str(training.job.folder) if training else ""
        ):
            self.refineSection.watch(self.openJob(parameters.trainingFolder))

    def openJob(self, folder):
        """The job that a scene remembers, or None: moved, damaged or newer, of which attaching by hand says which."""
        from SSLSegPanel.job_run import JobRun

        if not folder or not Path(folder).is_dir() or not self.session.usable:
            return None
        try:
            return JobRun.open(folder)
        except Exception:
            return None

    def onParameters(self, caller=None, event=None):
        self.session.parameters_changed.emit()

    def refresh(self):
        """Show the scene as it is now."""
        if self.session.parameters is not None:
            self.session.cases_changed.emit()
            self.session.setup_changed.emit()

    def attach(self, run):
        """Take up a job that was started before: load its cases where the scene lacks them, and show its results."""

        def loaded(cases):
            self.session.cases_changed.emit()
            self.runSection.watch(run)

        self.session.stepper.start(self.logic.loadJobSteps(run), loaded)


class SSLSegLogic(ThreePhases, PanelLogic, ScriptedLoadableModuleLogic):
    """What the panel does, for the Python console and for scripts: ``SSLSegLogic().process(labelled, unlabelled)``.

    The phases of a run are methods of :class:`SSLSegPanel.phases.ThreePhases`, all else of
    :class:`SSLSegPanel.panel_logic.PanelLogic`; ``help(SSLSegLogic)`` lists both.
    """

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)

    def getParameterNode(self):
        from SSLSegPanel.settings import PanelParameters

        return PanelParameters(super().getParameterNode())

    @property
    def cases(self):
        """The scene's list of cases."""
        from SSLSegPanel.casenodes import CaseList

        return CaseList()


class SSLSegTest(ScriptedLoadableModuleTest):
    """Reload & Test in Slicer; the same tests as ``ctest`` runs."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        import unittest

        from SSLSegPanel import self_test

        suite = unittest.defaultTestLoader.loadTestsFromModule(self_test)
        result = unittest.TextTestRunner(verbosity=2).run(suite)
        self.assertTrue(result.wasSuccessful())  # noqa: PT009 - Slicer's tests are unittest's

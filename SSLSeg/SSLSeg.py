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
            'See the <a href="https://github.com/sslseg/SlicerSSLSeg#readme">user guide</a>.'
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
        for section in (self.ui.methodSection, self.ui.refineSection, self.ui.exportSection, self.ui.advancedBox):
            section.collapsed = True
        for edit in (self.ui.outputEdit, self.ui.weightsFolderEdit, self.ui.attachEdit, self.ui.exportEdit):
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
            for section in (self.methodSection, self.runSection, self.refineSection):
                section.close()
            self.resultsSection.exit()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()
        self.resultsSection.enter()

    def exit(self):
        self.resultsSection.exit()
        self.setParameterNode(None)

    # The scene

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        if self.parent.isEntered:
            self.setParameterNode(None)  # its values have come from the file
            self.initializeParameterNode()

    def onSceneChanged(self, caller, event):
        if self.session.parameters is not None:
            self._quiet.start()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameters):
        """Tie the widgets to the scene's parameters, or untie them (None)."""
        if self.session is None:
            return
        if self.session.parameters is not None:
            self.session.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.session.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.session.parameters = parameters
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
            self.refresh()
            self.takeUpRun()

    def takeUpRun(self):
        """After a scene was loaded: know the run its results come from, and follow it where it still runs."""
        from SSLSegPanel.job_run import JobRun

        folder = self.session.parameters.jobFolder
        if self.session.run is not None or not folder or not Path(folder).is_dir() or not self.session.usable:
            return
        try:
            run = JobRun.open(folder)
        except Exception:  # moved, damaged or newer: attaching by hand says which
            return
        self.session.run = run
        if run.running:
            self.runSection.watch(run)
        self.session.run_changed.emit()

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


class SSLSegLogic(PanelLogic, ScriptedLoadableModuleLogic):
    """What the panel does, for the Python console and for scripts.

    Example::

        logic = SSLSegLogic()
        run = logic.prepare(labelled={volume1: segmentation1}, unlabelled=[volume2, volume3], preset="fast")
        logic.run(run)                # in a child process; waits for it
        nodes = logic.publish(run)    # {"volume2": segmentation node, ...}

    or all three at once with :meth:`process`.
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

    # The three phases

    def prepare(self, labelled=None, unlabelled=None, *, folder=None, **choices):
        """Phase 1, on the main thread: write the scans as files and describe the run. Nothing is computed.

        Args:
            labelled: Volume node -> the expert's segmentation node; the scene's labelled cases by default.
            unlabelled: Volume nodes; the scene's unlabelled cases by default.
            folder: New folder for the run; a dated one in the panel's job folder by default.
            choices: See :class:`SSLSegPanel.prepare.RunChoices`: ``weights``, ``preset``, ``modality``, ``window``,
                ``threshold``, ``seed``, ``device``, ``ignored``, ``paired``.

        Returns:
            A :class:`SSLSegPanel.job_run.JobRun`, not started.

        Raises:
            SSLSegError: A case cannot be used, weights are missing: the sentence says which and what to do.
        """
        from SSLSegPanel.job_run import JobRun
        from SSLSegPanel.prepare import RunChoices, finish, new_run_folder, prepare_steps

        given = [self.cases.add(volume, "labelled", node) for volume, node in (labelled or {}).items()]
        given += [self.cases.add(volume, "unlabelled") for volume in unlabelled or []]
        folder = Path(folder) if folder else new_run_folder(self._jobFolder())
        job = finish(prepare_steps(given or list(self.cases), RunChoices(**choices), folder))
        self.getParameterNode().jobFolder = str(job.folder)
        return JobRun(job)

    def run(self, run, progress=None):
        """Phase 2, in a child process: compute, and wait for it.

        Args:
            run: From :meth:`prepare`, or ``JobRun.open(folder)``.
            progress: Called with the run's progress a few times a second.

        Returns:
            ``finished`` or ``cancelled``.

        Raises:
            SSLSegError: The run failed, with the reason. Finished cases are kept; calling again resumes.
        """
        import time

        from SSLSegLib.errors import JobError

        run.start()
        while run.poll():
            if progress is not None:
                progress(run.progress)
            time.sleep(0.1)
        if run.progress.ended == "failed":
            raise JobError(run.progress.message or "The run failed.", remedy=run.progress.remedy or None)
        return run.progress.ended

    def publish(self, run):
        """Phase 3, on the main thread: show the finished results in the scene.

        Returns:
            Case name -> segmentation node, for every case of the scene that has a result.
        """
        from SSLSegPanel.prepare import finish
        from SSLSegPanel.publish import finished_results, publish_result

        found = finished_results(run.job, self.cases)
        return {case.name: finish(publish_result(case, folder)) for case, folder in found}

    def process(self, labelled=None, unlabelled=None, *, folder=None, progress=None, **choices):
        """All three phases; see :meth:`prepare`, :meth:`run` and :meth:`publish`."""
        run = self.prepare(labelled, unlabelled, folder=folder, **choices)
        self.run(run, progress)
        return self.publish(run)


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

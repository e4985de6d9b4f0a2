# ruff: noqa: N802, N815, PT009 - the names are those of Slicer and Qt
"""A small scripted module with what scripted modules commonly do; the host's tests run it unmodified."""

import enum
import pathlib
from typing import Annotated

import ctk
import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Toy(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Toy")
        self.parent.categories = ["Examples"]
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Toy", sampleName="Ramp", customDownloader=lambda source: ToyLogic.makeRamp()
    )


class Mode(enum.Enum):
    FAST = "fast"
    PAPER = "paper"

    def label(self):
        return self.value.title()


@parameterPack
class Advanced:
    folder: pathlib.Path = pathlib.Path("out")
    count: Annotated[int, WithinRange(1, 9)] = 3


@parameterNodeWrapper
class ToyParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    output: vtkMRMLSegmentationNode
    threshold: Annotated[float, WithinRange(-100, 500)] = 100
    invert: bool = False
    mode: Mode = Mode.PAPER
    device: Annotated[str, Choice(["cpu", "cuda"])] = "cpu"
    note: str
    volumes: list[vtkMRMLScalarVolumeNode]
    roles: dict[str, str]
    advanced: Advanced


class ToyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self.seen = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Toy.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ToyLogic()
        self.extra = ctk.ctkCollapsibleButton()
        self.extra.text = _("More")
        self.extra.collapsed = True
        self.layout.addWidget(self.extra)
        form = qt.QFormLayout(self.extra)
        self.table = qt.QTableWidget(0, 2)
        self.table.setHorizontalHeaderLabels([_("Case"), _("Role")])
        form.addRow(_("Cases:"), self.table)
        self.layout.addStretch(1)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onInput)
        self.initializeParameterNode()

    def cleanup(self):
        self.seen.append("cleanup")
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.seen.append("enter")
        self.initializeParameterNode()

    def exit(self):
        self.seen.append("exit")
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, node):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
        self._parameterNode = node
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
            self.checkCanApply()

    def checkCanApply(self, caller=None, event=None):
        ready = self._parameterNode is not None and self._parameterNode.inputVolume is not None
        self.ui.applyButton.enabled = ready
        self.ui.applyButton.toolTip = _("Segment the volume") if ready else _("Choose a volume")

    def onInput(self, node):
        self.seen.append(node.GetName() if node else None)

    def onApply(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("Failed."), waitCursor=True):
            parameters = self._parameterNode
            parameters.output = self.logic.process(parameters.inputVolume, parameters.threshold, parameters.invert)


class ToyLogic(ScriptedLoadableModuleLogic):
    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)

    def getParameterNode(self):
        return ToyParameterNode(super().getParameterNode())

    @staticmethod
    def makeRamp():
        import numpy as np

        volume = slicer.util.addVolumeFromArray(np.arange(20 * 24 * 28, dtype=np.float32).reshape(20, 24, 28) / 30)
        volume.SetName("Ramp")
        return volume

    def process(self, volume, threshold, invert):
        array = slicer.util.arrayFromVolume(volume)
        mask = array < threshold if invert else array >= threshold
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} toy")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = node.GetSegmentation().AddEmptySegment("above", _("Above"), [0.9, 0.6, 0.1])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype("uint8"), node, segment, volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        return node


class ToyTest(ScriptedLoadableModuleTest):
    def runTest(self):
        self.setUp()
        self.test_ramp()

    def test_ramp(self):
        self.delayDisplay("Ramp")
        volume = ToyLogic.makeRamp()
        node = ToyLogic().process(volume, 100, False)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, "above", volume)
        self.assertEqual(int(mask.sum()), int((slicer.util.arrayFromVolume(volume) >= 100).sum()))

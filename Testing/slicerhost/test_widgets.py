"""The stand-ins show what PythonQt shows of the real widgets, no more, and follow the scene."""

import pytest
from PySide6 import QtWidgets

NAMES = {
    "ctkSliderWidget": """
        value minimum maximum singleStep pageStep decimals prefix suffix tracking spinBoxVisible setValue
        setDecimals reset valueChanged valueIsChanging
    """,
    "ctkRangeWidget": """
        minimum maximum minimumValue maximumValue decimals singleStep setValues setRange setMinimumValue
        setMaximumValue valuesChanged minimumValueChanged maximumValueChanged
    """,
    "ctkPathLineEdit": """
        currentPath filters options nameFilters settingKey label showBrowseButton setCurrentPath browse
        addCurrentPathToHistory retrieveHistory currentPathChanged validInputChanged Dirs Files Drives NoSymLinks
        Readable Writable Executable
    """,
    "qMRMLWidget": """
        mrmlScene setMRMLScene mrmlSceneChanged isEntered
    """,
    "qMRMLNodeComboBox": """
        currentNodeID nodeTypes showHidden showChildNodeTypes hideChildNodeTypes baseName noneEnabled addEnabled
        removeEnabled editEnabled renameEnabled noneDisplay selectNodeUponCreation setMRMLScene setCurrentNode
        setCurrentNodeID setCurrentNodeIndex addNode removeCurrentNode editCurrentNode renameCurrentNode mrmlScene
        addAttribute removeAttribute setNodeTypeLabel nodeCount nodeFromIndex currentNode addMenuAction
        currentNodeChanged currentNodeIDChanged nodeActivated nodeAdded nodeAddedByUser
    """,
    "qMRMLSegmentSelectorWidget": """
        noneEnabled segmentationNodeSelectorVisible multiSelection horizontalLayout currentNode currentNodeID
        currentSegmentID selectedSegmentIDs segmentIDs setCurrentNode setCurrentNodeID setCurrentSegmentID
        setSelectedSegmentIDs setMRMLScene mrmlScene currentNodeChanged currentSegmentChanged
        segmentSelectionChanged
    """,
}


@pytest.mark.parametrize("class_name", NAMES)
def test_a_widget_has_the_names_of_slicers_and_no_others(host, class_name: str) -> None:
    import ctk
    import slicer

    cls = getattr(ctk if class_name.startswith("ctk") else slicer, class_name)
    qt_base = next(base for base in cls.__mro__ if base.__module__.startswith("PySide6"))
    shown = {name for name in dir(cls) if not name.startswith("_")} - set(dir(qt_base))
    shown -= {name for name in shown if name.endswith("Event")}
    assert shown == set(NAMES[class_name].split())
    assert not issubclass(cls, QtWidgets.QComboBox | QtWidgets.QAbstractSlider)


def selector(kind: str = "vtkMRMLScalarVolumeNode", **options):
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = [kind]
    for name, value in options.items():
        setattr(box, name, value)
    box.setMRMLScene(slicer.mrmlScene)
    return box


def add(name: str, kind: str = "vtkMRMLScalarVolumeNode"):
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass(kind, name)


def test_a_selector_offers_nodes_of_its_type_as_they_come_and_go(host) -> None:
    import slicer

    box = selector(noneEnabled=True)
    volume = add("a")
    add("labels", "vtkMRMLSegmentationNode")
    hidden = add("hidden")
    hidden.SetHideFromEditors(True)
    hidden.Modified()
    box.showHidden = False
    assert [box.nodeFromIndex(index) for index in range(box.nodeCount())] == [volume]
    assert box.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    slicer.mrmlScene.RemoveNode(volume)
    assert (box.nodeCount(), box.currentNode()) == (0, None)


def test_a_selector_without_none_takes_the_first_node_and_the_next_when_it_goes(host) -> None:
    import slicer

    heard = []
    box = selector()
    box.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: heard.append(node and node.GetName()))
    box.connect("currentNodeChanged(bool)", heard.append)
    first, second = add("first"), add("second")
    assert box.currentNode() is first
    slicer.mrmlScene.RemoveNode(first)
    assert box.currentNode() is second
    assert heard == ["first", True, "second", True]


def test_a_selector_with_none_stays_empty_until_a_node_is_chosen(host) -> None:
    box = selector(noneEnabled=True)
    volume = add("a")
    assert box.currentNode() is None
    box.setCurrentNode(volume)
    assert box.currentNodeID == volume.GetID()
    box.setCurrentNode(None)
    assert box.currentNode() is None


def test_a_selector_keeps_label_maps_out_only_when_told(host) -> None:
    add("labels", "vtkMRMLLabelMapVolumeNode")
    assert selector(noneEnabled=True).nodeCount() == 1
    assert selector(noneEnabled=True, showChildNodeTypes=False).nodeCount() == 0
    assert selector(noneEnabled=True, hideChildNodeTypes=["vtkMRMLLabelMapVolumeNode"]).nodeCount() == 0


def test_a_selector_filters_by_attribute(host) -> None:
    marked, _ = add("marked"), add("plain")
    marked.SetAttribute("SSLSeg.Kind", "pseudo-label")
    box = selector(noneEnabled=True)
    box.addAttribute("vtkMRMLScalarVolumeNode", "SSLSeg.Kind", "pseudo-label")
    assert [box.nodeFromIndex(index) for index in range(box.nodeCount())] == [marked]


def test_a_person_can_choose_create_and_delete_in_a_selector(host) -> None:
    box = selector("vtkMRMLSegmentationNode", noneEnabled=True, baseName="Mine")
    inner = box.findChild(QtWidgets.QComboBox)
    texts = [inner.itemText(index) for index in range(inner.count)]
    assert texts == ["None", "Create new Segmentation", "Delete current"]
    inner.activated.emit(1)
    assert box.currentNode().GetName() == "Mine"
    inner.activated.emit(inner.findText("Delete current"))
    assert box.currentNode() is None


def test_a_renamed_node_is_shown_with_its_new_name(host) -> None:
    box = selector(noneEnabled=True)
    volume = add("old")
    volume.SetName("new")
    inner = box.findChild(QtWidgets.QComboBox)
    assert inner.findText("new") >= 0
    assert inner.findText("old") < 0


def test_a_checkable_selector_remembers_what_is_checked(host) -> None:
    import slicer

    box = slicer.qMRMLCheckableNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer.mrmlScene)
    heard = []
    box.connect("checkedNodesChanged()", lambda: heard.append(len(box.checkedNodes())))
    first, second = add("first"), add("second")
    box.check(second)
    add("third")
    assert box.checkedNodes() == (second,)
    assert not box.noneChecked()
    slicer.mrmlScene.RemoveNode(second)
    assert box.checkedNodes() == ()
    assert heard == [1, 0]
    assert first in box.uncheckedNodes()


def test_a_segment_selector_follows_the_segmentation(host) -> None:
    import slicer

    widget = slicer.qMRMLSegmentSelectorWidget()
    widget.multiSelection = True
    widget.setMRMLScene(slicer.mrmlScene)
    node = add("labels", "vtkMRMLSegmentationNode")
    node.GetSegmentation().AddEmptySegment("a", "Liver")
    widget.setCurrentNode(node)
    node.GetSegmentation().AddEmptySegment("b", "Spleen")
    assert widget.segmentIDs() == ("a", "b")
    widget.setSelectedSegmentIDs(["b"])
    assert (widget.selectedSegmentIDs(), widget.currentSegmentID()) == (("b",), "b")
    node.GetSegmentation().RemoveSegment("b")
    assert widget.selectedSegmentIDs() == ()


def test_a_segments_table_lists_segments(host) -> None:
    import slicer

    view = slicer.qMRMLSegmentsTableView()
    node = add("labels", "vtkMRMLSegmentationNode")
    view.setSegmentationNode(node)
    node.GetSegmentation().AddEmptySegment("a", "Liver")
    assert view.segmentCount() == 1
    view.setSelectedSegmentIDs(["a"])
    assert view.selectedSegmentIDs() == ("a",)


def test_a_deleted_widget_no_longer_listens_to_the_scene(host) -> None:
    box = selector()
    box.deleteLater()
    host.app.sendPostedEvents(None, 52)
    add("late")


def test_a_folded_button_hides_its_children_and_says_so(host) -> None:
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton()
    button.text = "Advanced"
    layout = qt.QFormLayout(button)
    inner = qt.QSpinBox()
    layout.addRow("Runs:", inner)
    button.show()
    heard = []
    button.connect("contentsCollapsed(bool)", heard.append)
    button.collapsed = True
    assert (inner.isVisible(), heard, button.checked) == (False, [True], False)
    button.collapsed = False
    assert inner.isVisible()


def test_a_slider_and_its_number_agree(host) -> None:
    import ctk

    slider = ctk.ctkSliderWidget()
    slider.decimals = 2
    slider.minimum, slider.maximum, slider.value = -1, 1, 0.25
    heard = []
    slider.valueChanged.connect(heard.append)
    slider.findChild(QtWidgets.QSlider).setValue(50)
    assert (slider.value, heard) == (0.5, [0.5])
    slider.value = 7
    assert slider.value == 1


def test_a_path_is_text_and_knows_what_is_there(host, tmp_path) -> None:
    import ctk

    edit = ctk.ctkPathLineEdit()
    edit.filters = ctk.ctkPathLineEdit.Dirs
    heard = []
    edit.connect("validInputChanged(bool)", heard.append)
    edit.currentPath = str(tmp_path / "missing")
    edit.currentPath = str(tmp_path)
    assert heard[-1] is True
    with pytest.raises(TypeError, match="str"):
        edit.setCurrentPath(tmp_path)


def test_a_button_makes_room_for_its_children(host) -> None:
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton()
    layout = qt.QVBoxLayout(button)
    rows = [qt.QSpinBox() for _ in range(5)]
    for row in rows:
        layout.addWidget(row)
    outer = qt.QWidget()
    outside = qt.QVBoxLayout(outer)
    outside.addWidget(button)
    outside.addStretch(1)
    outer.show()
    host.process_events()
    assert all(row.height >= row.minimumSizeHint().height() for row in rows)
    assert rows[0].y >= button.fontMetrics().height()


def test_children_added_while_folded_stay_hidden_and_keep_their_class(host) -> None:
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton()
    button.collapsed = True
    layout = qt.QVBoxLayout(button)
    button.show()
    layout.addWidget(qt.QCheckBox("late"))
    host.process_events()
    child = next(each for each in button.children() if each.isWidgetType())
    assert type(child) is qt.QCheckBox
    assert not child.isVisible()
    button.collapsed = False
    assert child.isVisible()

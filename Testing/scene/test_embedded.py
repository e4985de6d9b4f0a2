"""The embedded Slicer stands in where the application is not, and stands aside where it is."""

import subprocess
import sys
import textwrap

import pytest

from SSLSegLib.errors import SSLSegError
from SSLSegLib.scene import embedded


def run(code: str) -> subprocess.CompletedProcess:
    """In a process of its own: one application per process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )


def test_starting_twice_gives_the_same_scene(scene) -> None:
    assert embedded.start() is embedded.start()
    assert embedded.current_scene() is embedded.start().scene


def test_what_scripts_expect_of_slicer_is_there(scene) -> None:
    import slicer

    assert slicer.mrmlScene is embedded.current_scene()
    assert slicer.modules.segmentations.logic().IsA("vtkSlicerSegmentationsModuleLogic")
    assert not hasattr(slicer, "loadVolume")  # the wheel's flattened copies are not Slicer's API
    assert slicer.util.getNodesByClass("vtkMRMLColorTableNode")
    names: list[str] = []
    slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
    assert names


def test_data_nodes_enter_and_leave_the_subject_hierarchy_by_themselves(scene) -> None:
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    before = hierarchy.GetNumberOfItems()
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    assert hierarchy.GetItemByDataNode(node)
    scene.RemoveNode(node)
    assert hierarchy.GetNumberOfItems() == before


def test_a_fresh_process_starts_and_ends_without_a_word_of_complaint() -> None:
    ended = run("""
        from SSLSegLib.scene import embedded
        embedded.start()
        import slicer
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "labels")
        segmentation.CreateDefaultDisplayNodes()
        assert segmentation.GetSegmentation().AddEmptySegment("a")
        with embedded.private_scene() as scene:
            scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "image")
    """)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_room_imports_nothing_heavy() -> None:
    ended = run("""
        import sys
        import SSLSegLib.scene
        heavy = {"slicer", "vtk", "torch", "SimpleITK"} & set(sys.modules)
        assert not heavy, heavy
    """)
    assert ended.returncode == 0, ended.stderr


def test_inside_the_application_its_scene_is_used_and_nothing_is_started() -> None:
    """The application is a fake here: a process with a ``slicer.app`` and a scene of its own."""
    ended = run("""
        import slicer
        slicer.mrmlScene = slicer.vtkMRMLScene()
        logic = slicer.vtkSlicerSegmentationsModuleLogic()  # as in the application, the converters are there
        logic.SetMRMLScene(slicer.mrmlScene)
        slicer.app = object()
        flattened = slicer.loadVolume
        import numpy as np
        from SSLSegLib.cases.geometry import Geometry
        from SSLSegLib.cases.volume import Volume
        from SSLSegLib.errors import SSLSegError
        from SSLSegLib.scene import embedded, volumes
        node = volumes.volume_to_node(Volume(np.zeros((1, 2, 3, 4), np.float32), Geometry((2, 3, 4), np.eye(4))), "a")
        assert node.GetScene() is slicer.mrmlScene is embedded.current_scene()
        assert embedded.embedded() is None and slicer.loadVolume is flattened
        try:
            embedded.start()
        except SSLSegError:
            pass
        else:
            raise AssertionError("started beside the application")
    """)
    assert ended.returncode == 0, ended.stderr


def test_without_the_wheel_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slicer", None)
    with pytest.raises(SSLSegError, match="pip install slicer-core"):
        embedded.import_slicer()

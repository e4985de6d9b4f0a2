"""One embedded Slicer per process: every test starts with an empty scene, and fails on errors that VTK reports."""

from collections.abc import Iterator
from typing import Any

import pytest

from SSLSegLib.scene import embedded


@pytest.fixture(scope="session")
def slicer_parts() -> embedded.EmbeddedSlicer:
    return embedded.start()


@pytest.fixture
def vtk_errors() -> Iterator[list[str]]:
    """What VTK and MRML report during the test; a test that provokes errors clears the list."""
    import vtk

    window = vtk.vtkOutputWindow.GetInstance()
    reported: list[str] = []

    @vtk.calldata_type(vtk.VTK_STRING)
    def report(caller: Any, event: str, message: str) -> None:
        reported.append(message)

    observers = [window.AddObserver(kind, report) for kind in ("ErrorEvent", "WarningEvent")]
    yield reported
    for observer in observers:
        window.RemoveObserver(observer)
    assert not reported


@pytest.fixture
def scene(slicer_parts: embedded.EmbeddedSlicer, vtk_errors: list[str]) -> Iterator[Any]:
    slicer_parts.scene.Clear(0)
    yield slicer_parts.scene
    slicer_parts.scene.Clear(0)

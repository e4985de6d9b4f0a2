"""pytest fixtures; a conftest.py of module tests says ``from slicerhost.fixtures import host, slicer_host``.

Pytest needs the names imported, and ``Testing/`` on ``sys.path`` first.
"""

import sys
import traceback
from collections.abc import Iterator

import pytest

import slicerhost

__all__ = ["host", "slicer_host"]


@pytest.fixture(scope="session")
def slicer_host() -> slicerhost.Host:
    """The one host of this process; use :func:`host` in tests."""
    return slicerhost.start()


@pytest.fixture
def host(slicer_host: slicerhost.Host) -> Iterator[slicerhost.Host]:
    """The host with an empty scene. A test fails on exceptions in slots, warnings of Qt, and errors of VTK or MRML.

    ``host.errors`` lists them while the test runs; a test that provokes some clears it.
    """
    import vtk

    errors = slicer_host.errors
    slicer_host.reset()
    errors.clear()

    def in_slot(kind: type, value: BaseException, trace: object) -> None:
        errors.append("".join(traceback.format_exception(kind, value, trace)))

    @vtk.calldata_type(vtk.VTK_STRING)
    def from_vtk(caller: object, event: str, message: str) -> None:
        errors.append(message)

    window = vtk.vtkOutputWindow.GetInstance()
    observer = window.AddObserver("ErrorEvent", from_vtk)
    hook, sys.excepthook = sys.excepthook, in_slot  # where PySide and VTK leave exceptions of callbacks
    yield slicer_host
    try:
        slicer_host.reset()
    finally:
        sys.excepthook = hook
        window.RemoveObserver(observer)
    assert not errors, "\n".join(errors)

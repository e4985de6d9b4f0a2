"""Slicer's own Python code in place of the host's stand-ins, where its sources are at hand.

    SLICER_SOURCES=~/Slicer python -m pytest Testing/slicer_module

``SLICER_SOURCES`` is a working copy of Slicer (the version that a module shall run in); its ``ScriptedLoadableModule``,
``parameterNodeWrapper`` and ``util`` are then used as they are. Nothing of it is copied here, and nothing needs it.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["sources_folder", "use_sources"]

_NAMED = {  # classes that parameterNodeWrapper mentions at import or in a test of types, and no module here has
    "ctk": ("ctkCheckablePushButton", "ctkDoubleSlider", "ctkColorPickerButton", "ctkDoubleRangeSlider"),
    "slicer": ("qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLCollapsibleButton", "qMRMLRangeWidget"),
}


def sources_folder() -> Path | None:
    """The folder with Slicer's Python package, or None where no sources were named."""
    named = os.environ.get("SLICER_SOURCES")
    return Path(named).expanduser() / "Base" / "Python" / "slicer" if named else None


def use_sources(folder: Path) -> None:
    """Put Slicer's own modules into ``slicer``; the host has started all else."""
    import slicer

    for module, names in _NAMED.items():
        for name in names:
            if not hasattr(sys.modules[module], name):
                setattr(sys.modules[module], name, type(name, (), {}))
    for name in ("util", "ScriptedLoadableModule", "parameterNodeWrapper"):
        for loaded in [each for each in sys.modules if each == f"slicer.{name}" or each.startswith(f"slicer.{name}.")]:
            del sys.modules[loaded]
        setattr(slicer, name, _load(folder, name))


def _load(folder: Path, name: str) -> Any:
    package = folder / name / "__init__.py"
    path = package if package.is_file() else folder / f"{name}.py"
    places = [str(path.parent)] if path == package else None
    specification = importlib.util.spec_from_file_location(f"slicer.{name}", path, submodule_search_locations=places)
    module = importlib.util.module_from_spec(specification)
    sys.modules[f"slicer.{name}"] = module
    specification.loader.exec_module(module)
    return module

"""Who may import whom, what may be imported when, and that nothing needs torchvision."""

import ast
import importlib.util
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import SSLSegLib

LIBRARY = Path(SSLSegLib.__file__).parent
ROOMS = [
    *("cases", "weights", "tffs", "checkpoint", "pseudolabels", "selftraining", "unimatch", "vessa", "evaluation"),
    "scene",
]
SHARED = {"errors", "files", "messages", "processes", "progress", "resources", "seeds", "__version__"}
COMPOSING = ["pipelines", "jobs", "commands", "__main__"]  # each may import all rooms and those before it
ORDER = [*ROOMS, *COMPOSING]
HEAVY = ["torch", "sam2", "nnunetv2", "transformers", "monai", "matplotlib", "SimpleITK", "slicer", "vtk", "hydra"]
SLICER_ONLY = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "PySide6"}


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere, relative imports resolved."""
    return names_in(path.read_text(encoding="utf-8"), ["SSLSegLib", *path.relative_to(LIBRARY).parts[:-1]])


def names_in(source: str, package: list[str]) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


def part_of(path: Path) -> str:
    """The room (or top-level module) that a file belongs to."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def rooms_used(names: set[str]) -> set[str]:
    inside = {name.split(".")[1] for name in names if name.startswith("SSLSegLib.")}
    return inside - SHARED


def allowed(part: str) -> set[str]:
    if part in SHARED or part == "__init__":
        return set()
    return {*ORDER[: ORDER.index(part)], part}


FILES = sorted(path for path in LIBRARY.rglob("*.py") if "__pycache__" not in path.parts)


def test_there_is_no_room_that_the_order_does_not_know():
    assert {part_of(path) for path in FILES} <= {*ORDER, *SHARED, "__init__"}


def test_a_room_imports_only_rooms_before_it():
    wrong = {
        str(path.relative_to(LIBRARY)): sorted(rooms_used(imported(path)) - allowed(part_of(path)))
        for path in FILES
        if rooms_used(imported(path)) - allowed(part_of(path))
    }
    assert wrong == {}


def test_only_the_scene_knows_slicer_and_nothing_knows_qt():
    wrong = {
        str(path.relative_to(LIBRARY)): sorted(known)
        for path in FILES
        if (known := {name.split(".")[0] for name in imported(path)} & SLICER_ONLY)
        and (part_of(path) != "scene" or known & {"qt", "ctk", "PySide6"})
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from ..weights.loading import load_sam2", ["SSLSegLib", "tffs"], "SSLSegLib.weights.loading"),
        ("from .. import jobs", ["SSLSegLib", "tffs"], "SSLSegLib.jobs"),
        ("def f():\n    import SSLSegLib.jobs.folder", ["SSLSegLib", "cases"], "SSLSegLib.jobs.folder"),
        ("from SSLSegLib import jobs", ["SSLSegLib", "cases"], "SSLSegLib.jobs"),
    ],
)
def test_the_rules_see_every_way_to_import(source, package, expected):
    assert expected in names_in(source, package)


def run_python(program: str) -> dict:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=LIBRARY.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_library_and_its_rooms_imports_nothing_heavy():
    rooms = ["SSLSegLib", *(f"SSLSegLib.{part}" for part in ORDER if (LIBRARY / part).is_dir())]
    program = f"""
import importlib, json, sys
blame = {{}}
for name in {rooms!r}:
    importlib.import_module(name)
    for heavy in {HEAVY!r}:
        if heavy in sys.modules:
            blame.setdefault(heavy, name)
print(json.dumps(blame))
"""
    assert run_python(program) == {}


def test_the_command_line_starts_without_anything_heavy():
    program = f"""
import json, sys
import SSLSegLib.__main__
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    assert run_python(program) == []


def test_the_process_that_waits_for_trainings_loads_neither_torch_nor_nnunet():
    program = f"""
import json, sys, SSLSegLib.selftraining.rounds
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    assert run_python(program) == ["SimpleITK"]


def test_every_module_can_be_imported_without_torchvision_and_timm():
    modules = [
        module.name
        for module in pkgutil.walk_packages([str(LIBRARY)], "SSLSegLib.")
        if "__pycache__" not in module.name
    ]
    assert len(modules) > 40
    # Really absent, not hidden: libraries that look for them must find nothing, as on a user's machine.
    for absent in ("torchvision", "timm"):
        assert importlib.util.find_spec(absent) is None, f"{absent} must not be installed where this is tested"
    program = f"""
import importlib, json

failed = {{}}
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(failed))
"""
    assert run_python(program) == {}

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPECIFICATION = importlib.util.spec_from_file_location("cmake_lists", ROOT / "tools" / "cmake_lists.py")
cmake_lists = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(cmake_lists)

IN_GIT = subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True, check=False).returncode == 0
FILES = [(path, variable, python) for path, each in cmake_lists.LISTS.items() for variable, python in each.items()]


@pytest.mark.skipif(not IN_GIT, reason="not a git checkout")
@pytest.mark.parametrize(("path", "variable", "python"), FILES, ids=lambda each: str(each).split("/")[0])
def test_the_list_of_a_cmake_file_equals_what_git_tracks(path, variable, python):
    assert cmake_lists.in_cmake(ROOT / path, variable) == cmake_lists.expected(path, python), (
        "run python tools/cmake_lists.py"
    )


def test_the_project_and_the_module_bear_the_name_that_the_extension_index_expects():
    text = (ROOT / "CMakeLists.txt").read_text()
    assert "project(SSLSeg)" in text
    assert (ROOT / "SSLSeg" / "SSLSeg.py").is_file()


def test_the_icon_is_a_picture_of_the_size_that_slicer_asks_for():
    from PIL import Image

    with Image.open(ROOT / "SSLSeg.png") as icon:
        assert icon.size == (128, 128)
    assert (ROOT / "SSLSeg" / "Resources" / "Icons" / "SSLSeg.png").is_file()


STAND_IN = """
set(CMAKE_SKIP_INSTALL_RULES OFF)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  stand_in_install("${MY_SCRIPTS};${MY_RESOURCES}" ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR})
endmacro()
macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  stand_in_install("${MY_SCRIPTS};${MY_RESOURCES}" ${MY_INSTALL_DIR})
endmacro()
macro(stand_in_install files folder)
  foreach(file ${files})
    get_filename_component(below ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${folder}/${below})
  endforeach()
endmacro()
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_what_is_installed_runs_by_itself_in_the_layout_of_a_package(tmp_path):
    """A packaging dry run: cmake with stand-ins for Slicer's macros, then an import from the installed folder."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("SSLSeg", "SSLSegLib", "Resources"):
        (source / name).symlink_to(ROOT / name)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(SSLSeg NONE)\n"
        + STAND_IN
        + "".join(f"add_subdirectory({name})\n" for name in ("SSLSeg", "SSLSegLib", "Resources"))
    )
    for command in (
        ["cmake", "-S", str(source), "-B", str(tmp_path / "build")],
        ["cmake", "--install", str(tmp_path / "build"), "--prefix", str(tmp_path / "installed")],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    modules = tmp_path / "installed" / "lib" / "Slicer-5.12" / "qt-scripted-modules"
    assert (modules / "SSLSeg.py").is_file()
    assert (modules / "Resources" / "UI" / "SSLSeg.ui").is_file()
    assert (modules / "Resources" / "Models.json").is_file()
    assert not re.search("CMakeLists", "".join(path.name for path in modules.rglob("*")))
    import sys

    code = "import SSLSegLib.resources as r; from SSLSegLib.weights.catalogue import load_catalogue as c; " + (
        "assert c(); print(r.resource('Models.json'))"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(modules), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert Path(ended.stdout.strip()) == modules / "Resources" / "Models.json"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", OPEN_THE_PANEL, str(ROOT / "Testing"), str(modules)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(modules)},  # as Slicer has it
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "ready" in ended.stdout  # the bundled weights


OPEN_THE_PANEL = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
installed = Path(sys.argv[2])
import slicerhost

host = slicerhost.start()
panel = host.load_module(installed / "SSLSeg.py")
import SSLSegLib
import SSLSegPanel

for package in (SSLSegLib, SSLSegPanel):
    assert Path(package.__file__).is_relative_to(installed), package.__file__
for name in ("batch.py", "check_device.py", "grow_bank.py", "make_surfaces.py", "prepare_vessa.py"):
    assert Path(panel.logic.script(name)).is_file(), name
assert Path(panel.logic.resource("requirements.txt")).is_file()
panel.refresh()
print(panel.ui.weightsLabel.text, flush=True)
import os

os._exit(len(host.errors))
"""

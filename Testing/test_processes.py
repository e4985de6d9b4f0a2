"""Children: the interpreter they get, and that nothing outlives its parent or a cancelled tree."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from SSLSegLib import processes
from SSLSegLib.errors import SSLSegError
from SSLSegLib.processes import LIBRARY, end_with_parent, kill_tree, library_path, real_interpreter, this_process

SLEEPER = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])"
)


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def unnamed(monkeypatch):
    monkeypatch.delenv("SSLSEG_PYTHON", raising=False)


def test_a_python_that_is_no_launcher_is_taken_as_it_is():
    assert real_interpreter() == Path(sys.executable)


def test_the_environment_names_another_interpreter(monkeypatch):
    monkeypatch.setenv("SSLSEG_PYTHON", "/opt/python")
    assert real_interpreter() == Path("/opt/python")


def test_a_launcher_script_is_seen_through_to_the_python_that_runs(tmp_path, monkeypatch):
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(launcher))
    found = real_interpreter()
    assert found != launcher
    version = subprocess.run(
        [found, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True
    )
    assert version.stdout.strip() == sys.version


@pytest.mark.parametrize("folder", ["", "bin"])
def test_behind_slicer_itself_the_real_python_is_found_beside_it_or_in_its_prefix(tmp_path, monkeypatch, folder):
    slicer, real = tmp_path / "SlicerApp-real", tmp_path / folder / "python-real"
    real.parent.mkdir(exist_ok=True)
    for each in (slicer, real, tmp_path / "PythonSlicer"):
        each.write_bytes(b"\x7fELF")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "PythonSlicer"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(psutil.Process, "exe", lambda self: str(slicer))
    for prefix in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    assert real_interpreter() == real
    real.unlink()
    with pytest.raises(SSLSegError, match="SSLSEG_PYTHON"):
        real_interpreter()


def test_a_child_finds_this_library_and_what_its_parent_finds(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert library_path() == os.pathsep.join([str(LIBRARY), "/mine"])
    assert library_path(Path("/other")).startswith("/other")


def start(program, **options):
    child = subprocess.Popen([sys.executable, "-c", program], cwd=LIBRARY, stdout=subprocess.PIPE, text=True, **options)
    return child, [int(number) for number in child.stdout.readline().split()]


def test_a_tree_is_killed_as_a_whole():
    child, (grandchild,) = start(f"{SLEEPER}; print(child.pid, flush=True); time.sleep(300)")
    with child:
        kill_tree(child.pid, patience=0)
        wait_for(lambda: is_gone(grandchild))
    kill_tree(child.pid)  # what is gone already is no error


@pytest.mark.parametrize("patience", [0, 60])
def test_a_process_ends_with_its_parent_and_takes_its_own_children_along(patience):
    """Where it may take its time it is asked politely first, and does as it likes."""
    watched = f"""
import signal, sys
from SSLSegLib.processes import end_children, end_with_parent
def politely(number, frame):
    end_children()
    sys.exit()
signal.signal(signal.SIGTERM, politely)
parent, start = sys.argv[1:]
end_with_parent(int(parent), float(start), exit_code=3, patience={patience})
{SLEEPER}
print(child.pid, flush=True)
time.sleep(300)
"""
    parent = f"""
import subprocess, sys, time
from SSLSegLib.processes import this_process
child = subprocess.Popen([sys.executable, "-c", {watched!r}, *map(str, this_process())], stdout=subprocess.PIPE)
print(child.pid, int(child.stdout.readline()), flush=True)
time.sleep(300)
"""
    first, (child, grandchild) = start(parent)
    with first:
        assert not is_gone(child)
        first.kill()
    wait_for(lambda: is_gone(child) and is_gone(grandchild))


def test_a_process_with_the_parents_id_but_another_start_is_not_the_parent(monkeypatch):
    ended = []
    monkeypatch.setattr(processes.os, "_exit", ended.append)
    monkeypatch.setattr(processes, "end_children", lambda: None)
    pid, began = this_process()
    assert processes._lives(pid, began)
    end_with_parent(pid, began - 3600, exit_code=3)
    wait_for(lambda: ended == [3])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start of a process does not move with the clock")
def test_setting_the_clock_does_not_make_the_parent_look_dead(monkeypatch):
    ended = []
    monkeypatch.setattr(processes.os, "_exit", ended.append)
    monkeypatch.setattr(processes, "end_children", lambda: None)
    end_with_parent(*this_process(), exit_code=3)
    time.sleep(0.2)
    true = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: true(self) + 7200)
    time.sleep(1.5)
    assert ended == []

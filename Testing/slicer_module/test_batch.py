import subprocess
import sys
from pathlib import Path

from helpers_module import results_of

SCRIPT = Path(__file__).resolve().parents[2] / "SSLSeg" / "Scripts" / "batch.py"


def batch(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_finished_job_ends_with_0_at_once_and_is_not_computed_again(finished_job):
    before = {path: path.stat().st_mtime_ns for path in (finished_job / "results").rglob("*.*")}
    assert batch(finished_job).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (finished_job / "results").rglob("*.*")} == before
    assert sorted(results_of(finished_job)) == ["c2", "c3"]


def test_a_missing_manifest_ends_with_2_and_a_sentence(tmp_path):
    ended = batch(tmp_path / "none")
    assert ended.returncode == 2
    assert "There is no manifest" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_wrong_use_ends_with_2_and_explains_the_use():
    ended = batch()
    assert ended.returncode == 2
    assert "usage" in ended.stderr


def test_in_slicer_the_application_is_left_with_the_code(monkeypatch):
    import importlib.util
    import types

    specification = importlib.util.spec_from_file_location("batch", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    left = []
    stand_in = types.SimpleNamespace(app=object(), util=types.SimpleNamespace(exit=left.append))
    monkeypatch.setitem(sys.modules, "slicer", stand_in)
    module.leave(3)
    assert left == [3]

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.commands import shared
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.processes import LIBRARY

_SPECIFICATION = importlib.util.spec_from_file_location("small_cohort", Path(__file__).with_name("small_cohort.py"))
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    small_cohort.write_small_cohort(folder / "cohort")
    small_cohort.write_random_weights(folder / "tiny.safetensors")
    return folder


def tffs_arguments(inputs, out):
    weights = inputs / "tiny.safetensors"
    return ["tffs", inputs / "cohort", "--out", out, "--weights", weights, "-R", 1, "--threads", 1, "--device", "cpu"]


def test_help_names_every_command_and_appears_within_a_second():
    began = time.process_time(), time.monotonic()
    done = subprocess.run([sys.executable, "-m", "SSLSegLib", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("tffs", "run", "expect", "evaluate", "phantom", "demo", "cohort", "weights"):
        assert command in done.stdout
    best = min(_help_seconds() for _ in range(3))
    assert best < 1.0, f"{best:.2f} s of processor time, {time.monotonic() - began[1]:.2f} s in all"


def _help_seconds() -> float:
    program = "import sys, time; sys.argv = ['sslseg', '--help']\nfrom SSLSegLib.__main__ import main\n"
    program += "try:\n    main()\nexcept SystemExit:\n    print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def test_tffs_makes_a_job_that_ends_with_labels_a_report_and_a_scene(call, inputs, tmp_path):
    done = call(*tffs_arguments(inputs, tmp_path / "job"))
    assert done.exit_code == 0, done.output
    job = Job.open(tmp_path / "job")
    assert job.state().status == "finished"
    assert job.finished(["c2", "c3"]) == ["c2", "c3"]
    assert (job.report / "report.html").is_file()
    assert (job.folder / "scene.mrb").is_file()
    assert "report.html" in done.output

    again = call("run", job.folder, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    for name in ("labels.nii.gz", "labels.seg.nrrd", "probability_1.nii.gz", "result.json"):
        assert (tmp_path / "again/results/c2" / name).read_bytes() == (job.result_folder("c2") / name).read_bytes()

    resumed = call("run", job.folder / "manifest.json")
    assert resumed.exit_code == 0
    assert "Segmenting" not in resumed.output

    scored = call("evaluate", job.folder, inputs / "cohort")
    assert scored.exit_code == 0, scored.output
    assert "Dice" in scored.output


def test_a_mistake_is_one_sentence_with_exit_code_2_and_no_traceback(call, inputs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    for arguments in (
        ["tffs", tmp_path / "nowhere", "--out", tmp_path / "job"],
        ["tffs", inputs / "cohort", "--out", tmp_path / "job", "--weights", "no-such-weights"],
        tffs_arguments(inputs, tmp_path / "full"),
        ["run", tmp_path / "nowhere"],
        ["expect", tmp_path / "nowhere"],
        ["evaluate", tmp_path / "nowhere", inputs / "cohort"],
        ["cohort", "check", tmp_path / "nowhere"],
        ["phantom", tmp_path / "full" / "mine.txt"],
        ["demo", "--out", tmp_path / "full" / "mine.txt"],
        ["jobs", "list", tmp_path / "nowhere"],
        [*tffs_arguments(inputs, tmp_path / "job"), "--threads", 2000],
    ):
        done = call(*arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert "Traceback" not in done.output
        assert not (tmp_path / "job").exists()


def test_after_a_wrong_device_or_scheduler_the_corrected_command_takes_the_same_folder(call, inputs, tmp_path):
    right = [*tffs_arguments(inputs, tmp_path / "job"), "--no-report", "--no-scene"]
    (tmp_path / "slurm.json").write_text('{"workers": 0}')
    for wrong, said in (
        (["--device", "cuda:99"], "cuda:99 cannot be used"),
        (["--device", "gpu"], "no device named"),
        (["--scheduler", f"slurm:{tmp_path}/none.json"], "none.json cannot be read"),
        (["--scheduler", f"slurm:{tmp_path}/slurm.json"], "slurm.json is wrong: workers"),
    ):
        done = call(*right, *wrong)
        assert done.exit_code == 2, done.output
        assert said in done.output
        assert not (tmp_path / "job").exists()
    done = call(*right)
    assert done.exit_code == 0, done.output
    assert Job.open(tmp_path / "job").state().status == "finished"
    repeated = call("run", tmp_path / "job", "--out", tmp_path / "again", "--scheduler", f"slurm:{tmp_path}/none.json")
    assert repeated.exit_code == 2
    assert not (tmp_path / "again").exists()


def test_after_damaged_weights_the_corrected_command_takes_the_same_folder(call, inputs, tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"no tensors")
    right = [*tffs_arguments(inputs, tmp_path / "job"), "--no-report", "--no-scene"]
    done = call(*right, "--weights", tmp_path / "damaged.safetensors")
    assert done.exit_code == 2, done.output
    assert Job.open(tmp_path / "job").state().status == "failed"
    done = call(*right)
    assert done.exit_code == 0, done.output
    job = Job.open(tmp_path / "job")
    assert job.finished(["c2", "c3"]) == ["c2", "c3"]
    (aside,) = (job.logs / "replaced").iterdir()
    assert str(aside) in done.output
    assert "damaged.safetensors" in (aside / "manifest.json").read_text()
    refused = call(*right, "-R", 2)  # with results it does not give way any more
    assert "other inputs or parameters" in refused.output


@pytest.mark.parametrize("command", [("predict",), ("export-model", "--out", "models")])
def test_a_missing_job_is_said_before_anything_heavy_is_imported(tmp_path, command):
    program = "import sys\nfrom SSLSegLib.__main__ import main\n"
    program += f"sys.argv = ['sslseg', *{command}, 'nowhere']\ntry:\n    main()\nexcept SystemExit as ended:\n"
    program += "    print(ended.code, {'torch', 'nnunetv2', 'SimpleITK'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert "There is no manifest at" in done.stderr
    assert done.stdout.split("\n")[0] == "2 set()", done.stdout


def test_wrong_use_is_explained_by_the_parser(call):
    done = call("tffs", "--no-such-option")
    assert done.exit_code == 2
    assert "no-such-option" in done.output


def test_an_unexpected_error_ends_with_1_and_names_a_log_that_holds_the_traceback(call, monkeypatch, tmp_path):
    def broken(path):
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(Cohort, "load", broken)
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    done = call("cohort", "check", tmp_path)
    assert done.exit_code == 1
    (log,) = tmp_path.glob("sslseg-error-*.log")
    assert log.name in done.output.replace("\n", "")
    assert "in broken" in log.read_text()


def test_a_changed_label_geometry_is_refused_with_the_option_that_helps(call, inputs, tmp_path):
    import SimpleITK

    content = json.loads((inputs / "cohort" / "cohort.json").read_text())
    label = SimpleITK.ReadImage(str(inputs / "cohort" / "labels" / "c0.nii.gz"))
    label.SetOrigin((0.4, 0, 0))
    SimpleITK.WriteImage(label, str(tmp_path / "moved.nii.gz"))
    for case in content["cases"]:
        case["images"] = [str(inputs / "cohort" / path) for path in case["images"]]
        for known in ("label", "reference"):
            if known in case:
                case[known] = str(inputs / "cohort" / case[known])
    content["cases"][0]["label"] = str(tmp_path / "moved.nii.gz")
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    refused = call("cohort", "check", tmp_path / "cohort.json")
    assert refused.exit_code == 2
    assert "c0" in refused.output
    assert "--resample-labels" in refused.output
    assert call("cohort", "check", tmp_path / "cohort.json", "--resample-labels").exit_code == 0


def test_expect_prints_dice_per_labelled_case_and_warns_that_two_are_few(call, inputs):
    done = call("expect", inputs / "cohort", "--weights", inputs / "tiny.safetensors", "-R", 1, "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "c0" in done.output
    assert "c1" in done.output
    assert "too few" in done.output


def test_cohort_init_describes_a_folder_and_never_overwrites(call, inputs, tmp_path):
    for name in ("images", "labels"):
        (tmp_path / "scans" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "scans" / name).symlink_to(inputs / "cohort" / name)
    done = call("cohort", "init", tmp_path / "scans", "--classes", "1=liver,2=spleen", "--labelled", "c0,c2")
    assert done.exit_code == 0, done.output
    cohort = Cohort.load(tmp_path / "scans")
    assert [case.id for case in cohort.labelled] == ["c0", "c2"]
    assert [segment.name for segment in cohort.classes] == ["liver", "spleen"]
    assert cohort.case("c1").reference is not None
    before = (tmp_path / "scans" / "cohort.json").read_bytes()
    again = call("cohort", "init", tmp_path / "scans")
    assert again.exit_code == 2
    assert "there already" in again.output
    assert (tmp_path / "scans" / "cohort.json").read_bytes() == before


def test_a_job_that_runs_elsewhere_is_not_run_twice(call, inputs, tmp_path):
    from SSLSegLib.jobs.tffs import tffs_manifest
    from SSLSegLib.tffs.options import TffsOptions

    cohort = Cohort.load(inputs / "cohort")
    job = Job.create(tmp_path / "job", tffs_manifest(cohort, str(inputs / "tiny.safetensors"), TffsOptions()))
    with JobLock(job.lock_path):
        done = call("run", job.folder)
    assert done.exit_code == 2
    assert "runs this job" in done.output


def test_phantom_writes_a_cohort_that_passes_the_check(call, tmp_path):
    done = call("phantom", tmp_path / "p", "--labelled", 1, "--unlabelled", 1, "--test", 0)
    assert done.exit_code == 0, done.output
    assert call("cohort", "check", tmp_path / "p").exit_code == 0

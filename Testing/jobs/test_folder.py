import pytest

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.folder import Job, JobState, short_name
from SSLSegLib.jobs.manifest import Manifest


def test_a_job_can_be_opened_by_its_folder_and_by_its_manifest(make_job):
    job = make_job(seed=3)
    assert Job.open(job.folder).manifest == job.manifest
    assert Job.open(job.folder / "manifest.json").folder == job.folder
    assert job.state().status == "pending"


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(JobError, match="not empty"):
        Job.create(tmp_path, Manifest(kind="counting"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_same_work_comes_back_to_the_job_and_other_work_is_refused(make_job):
    job = make_job(seed=3)
    manifest = (job.folder / "manifest.json").read_bytes()
    assert make_job(seed=3).folder == job.folder
    with pytest.raises(JobError, match="other inputs or parameters"):
        make_job(seed=4)
    assert (job.folder / "manifest.json").read_bytes() == manifest


def test_a_wrong_parameter_makes_no_folder(tmp_path):
    with pytest.raises(JobError, match="parameter"):
        Job.create(tmp_path / "job", Manifest(kind="counting", parameters={"cases": 3}))
    assert not (tmp_path / "job").exists()


def test_a_result_appears_whole_or_not_at_all(make_job):
    job = make_job()

    def fail_halfway():
        with job.new_result("a") as folder:
            (folder / "half.bin").write_bytes(b"1")
            assert not job.has_result("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert not job.result_folder("a").exists()
    with job.new_result("a") as folder:
        (folder / "whole.bin").write_bytes(b"12")
        assert not job.result_folder("a").exists()
    assert job.has_result("a")
    assert job.finished(["b", "a"]) == ["a"]


@pytest.mark.parametrize("damage", ["change", "truncate", "remove", "checksums"])
def test_a_damaged_result_does_not_count_and_is_put_aside_when_made_anew(make_job, damage):
    job = make_job()
    with job.new_result("a") as folder:
        (folder / "x.bin").write_bytes(b"12")
    target = job.result_folder("a") / ("checksums.json" if damage == "checksums" else "x.bin")
    if damage == "remove":
        target.unlink()
    else:
        target.write_bytes({"change": b"13", "truncate": b"1", "checksums": b"[]"}[damage])
    assert not job.has_result("a")
    with job.new_result("a") as folder:
        (folder / "x.bin").write_bytes(b"12")
    assert job.has_result("a")
    replaced = list((job.logs / "replaced").iterdir())
    assert len(replaced) == 1
    assert (replaced[0] / "checksums.json").exists()


def test_a_damaged_or_newer_state_is_refused(make_job):
    job = make_job()
    (job.folder / "state.json").write_text("{}")
    with pytest.raises(JobError, match=r"job state .* damaged"):
        job.state()
    (job.folder / "state.json").write_text('{"schema_version": 9}')
    with pytest.raises(JobError, match="newer"):
        job.state()


def test_the_state_comes_back_as_written(make_job):
    job = make_job()
    job.write_state(JobState(status="failed", message="No.", remedy="Yes."))
    assert job.state().message == "No."


@pytest.mark.parametrize(
    "identifier", ["../../etc", "étude", "CON", "nul.txt", "a" * 65, ".hidden", "a/b", "ends.", "", "a b"]
)
def test_folder_names_inside_a_job_are_short_plain_and_stay_inside(identifier):
    name = short_name(identifier)
    assert name.isascii()
    assert 0 < len(name) <= 64
    assert all(character.isalnum() or character in "_-" for character in name)
    assert name.lower() not in ("con", "nul")


def test_different_cases_never_share_a_folder():
    names = {short_name(identifier) for identifier in ["étude", "Étude", "tude", "a b", "ab", "a/b"]}
    assert len(names) == 6


def test_scratch_is_empty_at_first_and_gone_afterwards(make_job):
    job = make_job()
    (job.folder / "scratch").mkdir()
    (job.folder / "scratch" / "old").touch()
    with job.scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").touch()
    assert not folder.exists()

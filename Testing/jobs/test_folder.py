import pytest

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.folder import Job, JobState, short_name
from SSLSegLib.jobs.lock import JobLock
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


def failed(job):
    """As a run leaves it that fails before its first result."""
    job.events_path.write_text("")
    job.logs.mkdir()
    (job.logs / "job.log").write_text("what went wrong")
    (job.folder / "results").mkdir()
    job.write_state(JobState(status="failed", message="No such device.", checked=True))
    return job


def test_other_work_that_failed_before_its_first_result_gives_way_and_its_files_are_kept(make_job):
    first = failed(make_job(seed=3))
    old = (first.folder / "manifest.json").read_bytes()
    job = make_job(seed=4)
    assert Job.open(job.folder).manifest.seed == 4
    assert job.state() == JobState()  # so that its cases are checked anew
    assert not job.events_path.exists()
    assert (job.put_aside / "manifest.json").read_bytes() == old
    assert (job.put_aside / "job.log").read_text() == "what went wrong"
    assert "No such device." in (job.put_aside / "state.json").read_text()
    assert job.put_aside.parent == job.logs / "replaced"
    assert not job.lock_path.exists()


@pytest.mark.parametrize("there", ["results/a/x", "unimatch/training/state.pt", "notes.txt", "logs/replaced/a/x"])
def test_a_failed_job_with_anything_in_its_folder_loses_nothing_to_other_work(make_job, there):
    job = failed(make_job(seed=3))
    (job.folder / there).parent.mkdir(parents=True, exist_ok=True)
    (job.folder / there).write_text("precious")
    if there.startswith("logs"):
        make_job(seed=4)
    else:
        with pytest.raises(JobError, match="other inputs or parameters"):
            make_job(seed=4)
        assert Job.open(job.folder).manifest.seed == 3
    assert (job.folder / there).read_text() == "precious"


@pytest.mark.parametrize("status", ["pending", "running", "finished", "cancelled"])
def test_only_a_failed_job_gives_way(make_job, status):
    job = failed(make_job(seed=3))
    job.write_state(JobState(status=status))
    with pytest.raises(JobError, match="other inputs or parameters"):
        make_job(seed=4)


def test_a_failed_job_that_is_being_run_again_does_not_give_way(make_job):
    job = failed(make_job(seed=3))
    with JobLock(job.lock_path), pytest.raises(JobError, match="runs this job"):
        make_job(seed=4)
    assert Job.open(job.folder).manifest.seed == 3


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
    with pytest.raises(JobError, match=r"job state .* damaged.*jobs resume"):
        job.state()
    (job.folder / "state.json").write_text('{"schema_version": 9}')
    with pytest.raises(JobError, match="newer"):
        job.state()
    with pytest.raises(JobError, match="newer"):
        job.mend_state()
    assert (job.folder / "state.json").read_text() == '{"schema_version": 9}'


def test_a_whole_state_needs_no_mending_and_a_damaged_one_of_a_running_job_is_left_alone(make_job):
    job = make_job()
    assert job.mend_state() is None
    (job.folder / "state.json").write_text("torn")
    with JobLock(job.lock_path), pytest.raises(JobError, match="runs this job"):
        job.mend_state()
    assert (job.folder / "state.json").read_text() == "torn"


def test_a_damaged_state_that_cannot_be_put_aside_is_said_in_words(make_job, monkeypatch):
    job = make_job()
    (job.folder / "state.json").write_text("torn")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(JobLock, "__enter__", refuse)  # as in a folder that may only be read
    with pytest.raises(JobError, match=r"cannot be written: Permission denied"):
        job.mend_state()


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

import builtins
import errno
import json
import os
import platform
import subprocess
import sys
import threading
import time

import psutil
import pytest

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.lock import JobLock, lock_owner, owner_process


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock.json"


def write_owner(path, **fields):
    owner = {"pid": os.getpid(), "process_start": psutil.Process().create_time(), "host": platform.node()}
    path.write_text(json.dumps({**owner, "since": "then", "token": "other", **fields}))


def test_a_held_lock_names_its_owner_and_refuses_a_second(path):
    with JobLock(path):
        assert lock_owner(path)["pid"] == os.getpid()
        with pytest.raises(JobError, match=f"Process {os.getpid()} .* runs this job"), JobLock(path):
            pass
    assert lock_owner(path) is None


def test_the_lock_of_a_killed_process_is_taken_over(path):
    program = (
        f"import time; from SSLSegLib.jobs.lock import JobLock; JobLock({str(path)!r}).__enter__();"
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(JobError, match=f"Process {owner.pid}"), JobLock(path):
            pass
        owner.kill()
        owner.wait()
        with JobLock(path) as lock:
            assert lock.taken_over_from["pid"] == owner.pid


def test_a_reused_process_id_is_not_the_owner(path):
    write_owner(path, process_start=psutil.Process().create_time() - 3600)
    with JobLock(path) as lock:
        assert lock.taken_over_from is not None


def test_a_living_owner_on_this_machine_keeps_the_lock_however_long_it_slept(path):
    write_owner(path)
    os.utime(path, (0, 0))
    with pytest.raises(JobError), JobLock(path):
        pass


def test_an_owner_elsewhere_keeps_the_lock_as_long_as_its_heart_beats(path):
    write_owner(path, host="another-machine")
    with pytest.raises(JobError, match="another-machine"), JobLock(path):
        pass
    os.utime(path, (time.time() - 600, time.time() - 600))
    with JobLock(path):
        pass


def test_the_heart_beats(path):
    with JobLock(path, heartbeat=0.02):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 60
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_who_lost_the_lock_is_told_and_does_not_remove_the_new_owners(path):
    with JobLock(path, heartbeat=0.02) as lock:
        lock.check()
        write_owner(path)
        deadline = time.monotonic() + 60
        while not lock.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(JobError, match="took this job over"):
            lock.check()
    assert lock_owner(path)["token"] == "other"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start of a process does not move with the clock")
def test_setting_the_clock_does_not_make_a_living_owner_look_dead_nor_a_reused_id_alive(path, monkeypatch):
    """Where Linux computes the start from the time of day, a clock set by two hours moves it by two hours."""
    with JobLock(path):
        true = psutil.Process.create_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: true(self) + 7200)
        assert owner_process(lock_owner(path)).pid == os.getpid()
        with pytest.raises(JobError, match="runs this job"), JobLock(path):
            pass
        assert owner_process({**lock_owner(path), "since_boot": 1}) is None
        assert owner_process({**lock_owner(path), "boot": None}) is None  # as a forged lock would have it


def test_a_computer_of_the_same_name_keeps_the_lock_as_long_as_its_heart_beats(path):
    write_owner(path, pid=2**22 + 1, boot="another boot, or another localhost")
    with pytest.raises(JobError, match="try again in 2 minutes"), JobLock(path):
        pass
    os.utime(path, (time.time() - 600, time.time() - 600))
    with JobLock(path):
        pass


def test_a_lock_that_another_user_lets_nobody_read_is_kept_as_long_as_its_heart_beats(path, monkeypatch):
    """The refusal to read is a fake here: tests may run as a user who may read everything."""
    write_owner(path, host="another-machine")
    real = builtins.open

    def refuse(name, *arguments, **options):
        if name == path and arguments[:1] == ("rb",):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(JobError, match="lets nobody read"), JobLock(path):
        pass
    os.utime(path, (time.time() - 600, time.time() - 600))
    JobLock(path)._take()


@pytest.mark.parametrize("error", [PermissionError, OSError(errno.ESTALE, "stale"), FileNotFoundError])
def test_a_lock_file_that_cannot_be_read_for_a_moment_is_not_lost(path, monkeypatch, error):
    def away(path):
        raise error

    with JobLock(path, heartbeat=0.02) as lock:
        with monkeypatch.context() as patch:
            patch.setattr("SSLSegLib.jobs.lock.read_json", away)
            if error is FileNotFoundError:  # the whole folder is away, as of a share that is not mounted
                patch.setattr("pathlib.Path.is_dir", lambda self: False)
            time.sleep(0.2)
        lock.check()
        assert not lock.lost


def test_a_machine_that_wakes_up_sees_at_once_that_it_has_lost_the_lock(path, monkeypatch):
    with JobLock(path) as lock:
        write_owner(path)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 600)
        with pytest.raises(JobError, match="took this job over"):
            lock.check()


def test_a_file_system_without_locks_is_said(path, monkeypatch):
    def refuse(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", lambda self, *_, **__: refuse(self))
    with pytest.raises(JobError, match="cannot lock files"), JobLock(path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\x00"])
def test_a_damaged_lock_file_blocks_nobody(path, content):
    path.write_text(content)
    os.utime(path, (0, 0))
    with JobLock(path):
        pass


def test_of_many_that_find_a_stale_lock_one_gets_it(path):
    write_owner(path, pid=2**22 + 1)
    won, lost, barrier, release = [], [], threading.Barrier(8), threading.Event()

    def try_it():
        barrier.wait()
        try:
            with JobLock(path):
                won.append(1)
                release.wait(60)  # until all others have tried: a lock given back is anybody's
        except JobError:
            lost.append(1)
            if len(lost) == 7:
                release.set()

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(won) == 1

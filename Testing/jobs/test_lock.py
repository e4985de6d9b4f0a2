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
from SSLSegLib.jobs.lock import JobLock, lock_owner


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

"""A job in its child process, as the panel and the console watch it: start, look, cancel, come back to it. No Qt."""

from pathlib import Path

from SSLSegPanel.progress import RunProgress

__all__ = ["JobRun"]


class JobRun:
    """One job and what is known of its progress.

    Args:
        job: A ``SSLSegLib.jobs.folder.Job``.
    """

    def __init__(self, job):
        self.job = job
        self.progress = RunProgress()
        self.attached = False  # opened, not started here: its times are not those of this computer
        self._process = None
        self._events = None

    @classmethod
    def open(cls, folder):
        """Come back to a job folder, running or not.

        Raises:
            JobError: There is no job.
        """
        from SSLSegLib.jobs.events import EventFollower
        from SSLSegLib.jobs.folder import Job

        run = cls(Job.open(Path(folder)))
        run.attached = True
        run._events = EventFollower(run.job.events_path)
        run.poll()
        return run

    def start(self, *, detached=False):
        """Start the job, or resume it, in a child process that gets the library's path told.

        Args:
            detached: Let it outlive Slicer.

        Raises:
            JobError: It is running already, or the child cannot be started.
        """
        from SSLSegLib.jobs.events import read_events
        from SSLSegLib.jobs.process import start_job

        self.progress, self.attached = RunProgress(), False
        if self.job.events_path.is_file():  # of a training that goes on, the plot shows its beginning too
            self.progress.metrics = [each for each in read_events(self.job.events_path) if each["event"] == "metric"]
        self._process = start_job(self.job.folder, detached=detached)
        self._events = self._process

    def start_steps(self):
        """:meth:`start` in steps, since a disk may take its time. A generator; closing it ends the child again."""
        from SSLSegPanel.children import aside

        try:
            yield from aside(self.start)
        except GeneratorExit:
            if self._process is not None:
                self.kill()
            raise

    @property
    def running(self):
        """Whether somebody works on it: our child, or a process that an earlier Slicer has left.

        A training holds the lock of the finished job whose labels it refines; that job is not running then.
        """
        if self._process is not None:
            return self._process.running
        if self.job.state().status not in ("pending", "running"):
            return False
        from SSLSegLib.jobs.lock import lock_owner, owner_process

        owner = lock_owner(self.job.lock_path)
        return owner is not None and owner_process(owner) is not None

    def poll(self):
        """Take in what is new; true while it runs. After the end, ``progress.ended`` says how it ended."""
        running = self.running  # asked first, so that the last events are not missed
        for event in self._events.poll():
            self.progress.feed(event)
        if not running and self.progress.ended is None:
            state = self._process.wait(5) if self._process is not None else self.job.state()
            if state.status not in ("finished", "cancelled"):
                self.progress.message, self.progress.remedy = state.message, state.remedy
            self.progress.ended = state.status if state.status in ("finished", "cancelled") else "failed"
        return running

    def ask_to_end(self):
        """Ask the child to end, without waiting; :meth:`kill` ends it for good."""
        import contextlib
        import sys

        import psutil

        if sys.platform == "win32":  # there asking is killing, and the family must go with it
            self.kill()
            return
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).terminate()

    def kill(self):
        """End the child and everything that it has started, at once."""
        from SSLSegLib.jobs.process import cancel_job

        if self._process is not None:
            self._process.cancel(patience=0)
        else:
            cancel_job(self.job.folder, patience=0)

    def _pid(self):
        if self._process is not None:
            return self._process.pid if self._process.running else None
        from SSLSegLib.jobs.lock import lock_owner, owner_process

        owner = lock_owner(self.job.lock_path)
        process = owner_process(owner) if owner else None
        return process.pid if process else None

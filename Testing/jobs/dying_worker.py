"""The real worker, which is killed by SIGKILL the moment its first result is there: a kill that is never too late."""

import os
import signal
import sys
from contextlib import contextmanager

from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.worker import main

_new_result = Job.new_result


@contextmanager
def new_result(self, case_id):
    with _new_result(self, case_id) as folder:
        yield folder
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Job.new_result = new_result
    sys.exit(main())

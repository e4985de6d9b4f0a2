"""A worker whose job kind counts instead of segmenting: small enough to be killed at every moment."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from SSLSegLib.errors import CaseError
from SSLSegLib.jobs.kinds import JobKind, register_kind
from SSLSegLib.jobs.worker import main


class CountingParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cases: list[str] = ["a", "b", "c", "d"]
    seconds: float = 0.0  # of work per case
    gate: str | None = None  # a file: while it is there, no case after the second is begun
    failing: str | None = None
    grandchild: bool = False  # start a process that would run for minutes
    deaf: bool = False  # do not end when asked politely
    noise: bool = False


def preflight(job, progress):
    pass


def run(job, progress):
    parameters = job.manifest.checked_parameters()
    if parameters.grandchild:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        progress("metric", grandchild=child.pid)
    if parameters.noise:
        print('{"event": "finished"}')
        os.write(2, b"\xff\xfe noise of a library\n")
    progress("stage", stage="Counting", total=len(parameters.cases))
    while parameters.deaf:
        try:
            time.sleep(0.1)
        except KeyboardInterrupt:
            continue
    for number, case in enumerate(parameters.cases):
        if not job.has_result(case):
            if case == parameters.failing:
                raise CaseError("it cannot be counted.", case_id=case, remedy="Leave it out.")
            while number >= 2 and parameters.gate and os.path.exists(parameters.gate):
                time.sleep(0.02)
            time.sleep(parameters.seconds)
            with job.new_result(case) as folder:
                (folder / "count.txt").write_text(f"{job.manifest.seed} {case}")
                (folder / "when.txt").write_text(str(time.time_ns()))
            progress("result", case=case)
        progress("cases", done=number + 1, total=len(parameters.cases))


KIND = JobKind("counting", CountingParameters, preflight, run)
register_kind(KIND)
HERE = Path(__file__).parent

if __name__ == "__main__":
    sys.exit(main())

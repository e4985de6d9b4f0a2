"""Hostile input by the thousand: ``python Testing/benchmarks/bench_fuzz.py [--examples 1000] [--only NIfTI]``.

Each format is tried in a process of its own, so that a crash is seen and counted. Prints per format: inputs tried, how
many were accepted and refused, distinct failures, and seconds per thousand. Failing inputs are kept in ``--keep``.
``--seconds`` stops drawing for a format after so long. ``--atheris`` mutates the drawn inputs for so many seconds by
what lines of this library they reach, where the package atheris is installed (it is no dependency).
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent.parent


def all_formats():
    specification = importlib.util.spec_from_file_location("fuzz_conftest", HERE.parent / "fuzz" / "conftest.py")
    loader = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loader)
    names = ("hostile_documents", "hostile_images", "hostile_weights")
    return [each for name in names for each in sys.modules[name].FORMATS]


class Tries:
    """What became of the inputs of one format."""

    def __init__(self, name: str, keep: Path) -> None:
        self.format = next(each for each in all_formats() if each.name == name)
        self.guard = sys.modules["hostile_guard"]
        self.stem = name.replace(" ", "-")
        self.keep = keep
        self.outcome: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.last = keep / f"last-{self.stem}.bin"
        self.began = time.monotonic()

    def read(self, content: bytes) -> None:
        """Read one input under guard and count what came of it."""
        self.last.write_bytes(content)  # what was being read when the process crashed
        self.outcome["tried"] += 1
        try:
            self.outcome["accepted" if self.guard.try_input(self.format, content) else "refused"] += 1
        except (Exception, self.guard.Hang) as error:
            where = _where(error)
            if where not in self.failures:
                self.failures[where] = f"{type(error).__name__}: {str(error)[:160]}"
                (self.keep / f"failure-{self.stem}-{len(self.failures)}.bin").write_bytes(content)
            self.outcome["failed"] += 1

    def tell(self) -> None:
        """The last line of standard output is the outcome as JSON."""
        self.last.unlink(missing_ok=True)
        seconds = time.monotonic() - self.began
        print("\n" + json.dumps({**self.outcome, "seconds": seconds, "failures": self.failures}), flush=True)


def try_many(tries: Tries, examples: int, seed: int, seconds: float) -> None:
    """In the child: draw, read, count."""
    for content in _drawn(tries.format, examples, seed, seconds):
        tries.read(content)
    tries.tell()


def _drawn(format_, examples: int, seed: int, seconds: float):
    """Inputs of a format, a hundred at a time."""
    from hypothesis import Phase, given, settings
    from hypothesis import seed as with_seed

    end = time.monotonic() + seconds
    batch: list[bytes] = []
    for first in range(0, examples, 100):

        @with_seed(seed + first)
        @settings(max_examples=min(100, examples - first), phases=[Phase.generate], deadline=None)
        @given(format_.contents)
        def draw(content):
            batch.append(content)

        draw()
        for content in batch:
            if time.monotonic() > end:
                return
            yield content
        batch.clear()


def try_what_reaches_new_lines(tries: Tries, seed: int, seconds: float) -> None:
    """In the child: let atheris mutate drawn inputs, guided by the lines of the library that they reach."""
    import tempfile

    import atheris

    for name, module in list(sys.modules.items()):
        if name.startswith("SSLSegLib") and ".commands" not in name:
            for value in vars(module).values():
                if getattr(value, "__module__", None) == name and hasattr(value, "__code__"):
                    atheris.instrument_func(value)
    corpus = Path(tempfile.mkdtemp(prefix="sslseg-corpus-"))
    for number, content in enumerate(_drawn(tries.format, 60, seed, 30)):
        (corpus / str(number)).write_bytes(content[:65536])
    end = time.monotonic() + seconds

    def one_input(content: bytes) -> None:
        if time.monotonic() > end:
            tries.tell()
            os._exit(0)
        tries.read(content)

    # No alarm of its own (-timeout=0): the guard has one.
    atheris.Setup(
        [sys.argv[0], "-timeout=0", "-rss_limit_mb=8192", "-verbosity=0", f"-seed={seed + 1}", str(corpus)], one_input
    )
    atheris.Fuzz()


def _where(error: BaseException) -> str:
    """File and line of the innermost frame that is ours: failures of one cause count once."""
    import traceback

    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "SSLSegLib" in frame.filename
    ] or traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {type(error).__name__}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", help="Formats whose names contain this.")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="At most so long for a format.")
    parser.add_argument("--atheris", type=float, default=0, help="Seconds of coverage-guided inputs for a format.")
    parser.add_argument("--child", default="")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    if options.child:
        tries = Tries(options.child, options.keep)
        if options.atheris:
            try_what_reaches_new_lines(tries, options.seed, options.atheris)
        try_many(tries, options.examples, options.seed, options.seconds)
        return 0
    print(f"seed {options.seed}, {options.examples} examples a format")
    print(f"{'format':22} {'tried':>6} {'accepted':>9} {'refused':>8} {'failed':>7} {'causes':>7} {'s/1000':>8}")
    wrong = 0
    for format_ in all_formats():
        if options.only.lower() not in format_.name.lower():
            continue
        command = [sys.executable, __file__, "--child", format_.name, "--examples", str(options.examples)]
        command += ["--seed", str(options.seed), "--keep", str(options.keep)]
        command += ["--seconds", str(options.seconds), "--atheris", str(options.atheris)]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=LIBRARY)
        if child.returncode != 0:
            wrong += 1
            print(f"{format_.name:22} crashed with exit code {child.returncode}: {child.stderr[-1500:]}", flush=True)
            continue
        found = json.loads(child.stdout.splitlines()[-1])
        counts = [found.get(key, 0) for key in ("tried", "accepted", "refused", "failed")]
        wrong += len(found["failures"])
        row = "{:6} {:9} {:8} {:7}".format(*counts)
        per_thousand = 1000 * found["seconds"] / max(counts[0], 1)
        print(f"{format_.name:22} {row} {len(found['failures']):7} {per_thousand:8.1f}", flush=True)
        for where, what in found["failures"].items():
            print(f"    {where}: {what}", flush=True)
    print("no failures" if wrong == 0 else f"{wrong} distinct failures; inputs in {options.keep}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(LIBRARY))
    sys.exit(main())

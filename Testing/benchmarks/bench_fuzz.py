"""Hostile input by the thousand: ``python Testing/benchmarks/bench_fuzz.py [--examples 1000] [--only NIfTI]``.

Each format is tried in a process of its own, so that a crash is seen and counted. Prints per format: inputs tried, how
many were accepted and refused, distinct failures, and seconds per thousand. Failing inputs are kept in ``--keep``.
"""

import argparse
import importlib.util
import json
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


def try_many(name: str, examples: int, seed: int, keep: Path) -> None:
    """In the child: draw, read, count; the last line of standard output is the outcome as JSON."""
    from hypothesis import Phase, given, settings
    from hypothesis import seed as with_seed
    from hypothesis import strategies as st

    format_ = next(each for each in all_formats() if each.name == name)
    guard = sys.modules["hostile_guard"]
    outcome: Counter[str] = Counter()
    failures: dict[str, str] = {}
    last = keep / f"last-{name.replace(' ', '-')}.bin"

    @with_seed(seed)
    @settings(max_examples=examples, phases=[Phase.generate], derandomize=False)
    @given(st.data())
    def run(data):
        content = data.draw(format_.contents)
        last.write_bytes(content)  # what was being read when the process crashed
        outcome["tried"] += 1
        try:
            outcome["accepted" if guard.try_input(format_, content) else "refused"] += 1
        except (Exception, guard.Hang) as error:
            kind = f"{type(error).__name__}: {str(error)[:160]}"
            where = _where(error)
            if where not in failures:
                failures[where] = kind
                (keep / f"failure-{name.replace(' ', '-')}-{len(failures)}.bin").write_bytes(content)
            outcome["failed"] += 1

    began = time.monotonic()
    run()
    last.unlink(missing_ok=True)
    seconds = time.monotonic() - began
    print("\n" + json.dumps({**outcome, "seconds": seconds, "failures": failures}))


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
    parser.add_argument("--child", default="")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    if options.child:
        try_many(options.child, options.examples, options.seed, options.keep)
        return 0
    print(f"seed {options.seed}, {options.examples} examples a format")
    print(f"{'format':22} {'tried':>6} {'accepted':>9} {'refused':>8} {'failed':>7} {'causes':>7} {'s/1000':>8}")
    wrong = 0
    for format_ in all_formats():
        if options.only.lower() not in format_.name.lower():
            continue
        command = [sys.executable, __file__, "--child", format_.name, "--examples", str(options.examples)]
        command += ["--seed", str(options.seed), "--keep", str(options.keep)]
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

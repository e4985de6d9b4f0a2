"""Run a manifest without a panel, and end with an exit code that says how it went.

    Slicer --no-splash --no-main-window --python-script batch.py MANIFEST [--out FOLDER]
    python batch.py MANIFEST [--out FOLDER]

MANIFEST is a job's ``manifest.json`` or its folder: the job is run, or resumed. With ``--out`` the manifest is repeated
in a new folder. Exit codes: 0 finished, 1 unexpected, 2 an error with a way out, 3 cancelled. Nothing is asked.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LIBRARY = HERE if (HERE / "SSLSegLib").is_dir() else HERE.parent


def main(arguments):
    """Run the job in a child process, so that a crash or an empty memory never takes this one along."""
    parser = argparse.ArgumentParser(prog="batch.py", description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if str(LIBRARY) not in sys.path:
        sys.path.insert(0, str(LIBRARY))
    try:
        from SSLSegLib.errors import SSLSegError
        from SSLSegLib.jobs.folder import Job
        from SSLSegLib.jobs.manifest import read_manifest
        from SSLSegLib.jobs.process import start_job
        from SSLSegLib.jobs.runner import EXIT_CODES
    except ImportError as missing:
        print(f"SSLSeg is not set up: {missing}. Open the module once and use 7. Set-up.", file=sys.stderr)
        return 2
    try:
        path = options.manifest / "manifest.json" if options.manifest.is_dir() else options.manifest
        job = Job.create(options.out, read_manifest(path)) if options.out else Job.open(path)
        process = start_job(job.folder)
        try:
            for event in process.follow():
                if event["event"] not in ("progress", "metric"):
                    said = {
                        key: value for key, value in event.items() if key not in ("schema_version", "time", "event")
                    }
                    print(event["event"], *(f"{key}={value}" for key, value in said.items() if key != "versions"))
                    sys.stdout.flush()
            state = process.wait()
        except KeyboardInterrupt:
            state = process.cancel()
    except SSLSegError as error:
        print(error, file=sys.stderr)
        return 2
    if state.status == "failed":
        print(state.message, state.remedy, file=sys.stderr)
    return EXIT_CODES.get(state.status, 1)


def leave(code):
    """End the process: Slicer would stay open with ``sys.exit`` alone."""
    slicer = sys.modules.get("slicer")
    if slicer is not None and getattr(slicer, "app", None) is not None:
        slicer.util.exit(code)
    else:
        sys.exit(code)


if __name__ == "__main__":
    try:
        exit_code = main(sys.argv[1:])
    except SystemExit as ended:  # wrong use: argparse has said what is wrong
        exit_code = ended.code
    except Exception:
        import traceback

        traceback.print_exc()
        exit_code = 1
    leave(exit_code)

"""Figures of the panel in the stand-in for Slicer: start-up, click to first result, longest stall of the GUI thread.

    bench_panel.py [--weights NAME_OR_FILE] [--cohort COHORT.JSON]

A stall is the time between two beats of a 5 ms timer. Wall time counts what other processes take from this one on a
busy machine; processor time of the GUI thread does not, nor does it count waiting for the disk.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights")
    parser.add_argument("--cohort", type=Path)
    options = parser.parse_args(arguments)
    import slicerhost

    host = slicerhost.start()
    began, processor = time.monotonic(), time.thread_time()
    panel = host.load_module(ROOT / "SSLSeg" / "SSLSeg.py")
    host.process_events()
    print(f"panel start-up: {time.monotonic() - began:.2f} s wall, {time.thread_time() - processor:.2f} s processor")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if options.cohort is None:
            import small_cohort

            options.cohort = small_cohort.write_small_cohort(folder / "cohort")
        if options.weights is None:
            import small_cohort

            options.weights = str(small_cohort.write_random_weights(folder / "tiny.safetensors"))
        panel.ui.outputEdit.setCurrentPath(str(folder / "jobs"))
        panel.session.parameters.weights = options.weights
        panel.session.parameters.writeReport = False
        panel.casesSection.load(options.cohort)
        host.wait_until(lambda: panel.ui.applyButton.enabled and not panel.session.stepper.busy, 120)
        measure(host, panel)


def measure(host, panel):
    import qt

    beats = []
    timer = qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", lambda: beats.append((time.monotonic(), time.thread_time())))
    timer.start()
    began, first = time.monotonic(), None
    panel.ui.applyButton.click()
    while panel.runSection.state != "idle":
        host.app.processEvents()
        time.sleep(0.001)
        if first is None and panel.ui.resultsTable.rowCount:
            first = time.monotonic() - began
    timer.stop()
    walls = sorted(after[0] - before[0] for before, after in itertools.pairwise(beats))
    works = sorted(after[1] - before[1] for before, after in itertools.pairwise(beats))
    print(panel.ui.statusLabel.text)
    print(f"click to first result: {first:.1f} s; to the end: {time.monotonic() - began:.1f} s")
    for name, gaps in (("wall", walls), ("processor", works)):
        over = sum(gap > 0.1 for gap in gaps)
        print(f"longest stall, {name}: {1000 * gaps[-1]:.0f} ms; {over} of {len(gaps)} beats above 100 ms")


if __name__ == "__main__":
    main(sys.argv[1:])

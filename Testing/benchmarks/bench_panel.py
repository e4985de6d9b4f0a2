"""Figures of the panel in the stand-in for Slicer: start-up, click to first result, longest stall of the GUI thread.

    bench_panel.py [--weights NAME_OR_FILE] [--cohort COHORT.JSON] [--large]

A stall is the time between two beats of a 5 ms timer. Wall time counts what other processes take from this one on a
busy machine; processor time of the GUI thread does not, nor does it count waiting for the disk. What the stand-in takes
to draw its views, in software and on that thread, is told apart: Slicer draws them on the graphics card.
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
    parser.add_argument("--large", action="store_true", help="Two labelled and two unlabelled scans of 320 x 320 x 80.")
    options = parser.parse_args(arguments)
    import slicerhost

    host = slicerhost.start()
    began, processor = time.monotonic(), time.thread_time()
    panel = host.load_module(ROOT / "SSLSeg" / "SSLSeg.py")
    host.process_events()
    print(f"panel start-up: {time.monotonic() - began:.2f} s wall, {time.thread_time() - processor:.2f} s processor")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if options.large:
            options.cohort = write_large_cohort(folder / "large")
        if options.cohort is None:
            import small_cohort

            options.cohort = small_cohort.write_small_cohort(folder / "cohort")
        if options.weights is None:
            import small_cohort

            options.weights = str(small_cohort.write_random_weights(folder / "tiny.safetensors"))
        panel.ui.outputEdit.setCurrentPath(str(folder / "jobs"))
        panel.session.parameters.weights = options.weights
        panel.session.parameters.writeReport = False
        drawing = count_drawing()

        def ready():
            return panel.ui.applyButton.enabled and not panel.session.stepper.busy

        measure(host, "loading", drawing, lambda: panel.casesSection.load(options.cohort), ready)
        began, first = time.monotonic(), []

        def prepared():
            return panel.runSection.state in ("running", "idle")

        def ended():
            if not first and panel.ui.resultsTable.rowCount:
                first.append(time.monotonic() - began)
            return panel.runSection.state == "idle"

        measure(host, "preparing a run", drawing, panel.ui.applyButton.click, prepared)
        measure(host, "a run with its results", drawing, lambda: None, ended)
        print(panel.ui.statusLabel.text)
        print(f"click to first result: {first[0]:.1f} s; to the end: {time.monotonic() - began:.1f} s")
        measure(host, "a click on a result", drawing, lambda: panel.ui.resultsTable.selectRow(0))
        measure(host, "the next uncertain slice", drawing, panel.ui.nextSliceButton.click)
        measure(host, "accepting it", drawing, panel.ui.acceptButton.click)
        measure_clicks(host, panel, drawing, folder)


def measure_clicks(host, panel, drawing, folder):
    """What is clicked on a result, and what is written and loaded."""
    import SampleData
    import slicer
    from slicerhost.extension_fakes import install_dicom_fake

    def idle():
        return not panel.session.stepper.busy and not panel.resultsSection.steps.busy

    ui, section = panel.ui, panel.resultsSection
    ui.resultsTable.selectRow(0)
    case = section.current()
    host.process_events()
    measure(host, "Show 3D", drawing, ui.show3DButton.click, idle)
    measure(host, "hiding it", drawing, ui.show3DButton.click, idle)
    section.show(case)
    measure(host, "Correct", drawing, ui.correctButton.click, idle)
    host.show_module("SSLSeg")
    section.show(case)
    host.process_events()
    measure(host, "Keep correction", drawing, ui.correctButton.click, idle)
    section.show(case)
    host.process_events()
    slicer.util.confirmYesNoDisplay = lambda *_: True  # it asks whether the correction may go
    measure(host, "Revert", drawing, ui.revertButton.click, idle)
    ui.acceptButton.click()
    host.process_events()
    for each in panel.session.cases:
        each.volume.SetAttribute("DICOM.instanceUIDs", f"1.2.{each.id}")
    install_dicom_fake(tuple(f"1.2.{each.id}" for each in panel.session.cases))
    boxes = {
        "NIfTI": ui.exportNiftiBox,
        ".seg.nrrd": ui.exportSegBox,
        "DICOM (Slicer's part is a fake)": ui.exportDicomBox,
    }
    ui.exportManifestBox.setChecked(False)
    for number, (name, chosen) in enumerate(boxes.items()):
        for box in boxes.values():
            box.setChecked(box is chosen)
        ui.exportEdit.setCurrentPath(str(folder / f"export{number}"))
        measure(host, f"export: {name}", drawing, ui.exportButton.click, idle)
        print(ui.exportLabel.text)
    slicer.mrmlScene.Clear(0)
    host.process_events()
    sample = SampleData.SampleDataLogic()
    measure(host, "Sample Data", drawing, lambda: sample.downloadSample("SSLSegPhantom"), idle)


def measure(host, name, drawing, begin, ended=lambda: True):
    """Beat while something goes on, and print its longest stalls: wall, processor, and processor without drawing."""
    import qt

    beats = []
    timer = qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", lambda: beats.append((time.monotonic(), time.thread_time(), drawing[0])))
    timer.start()
    while not beats:  # else what a click does at once lies before the first beat
        host.app.processEvents()
    begin()
    while not ended():
        host.app.processEvents()
        time.sleep(0.001)
    for _ in range(30):
        host.app.processEvents()
        time.sleep(0.002)
    timer.stop()
    steps = [[now - last for last, now in zip(*pair, strict=True)] for pair in itertools.pairwise(beats)]
    wall, processor = (max(step[index] for step in steps) for index in (0, 1))
    owns = [step[1] - step[2] for step in steps]
    own, over = max(owns), sum(each > 0.1 for each in owns)
    print(
        f"{name}: longest stall {1000 * wall:.0f} ms wall, {1000 * processor:.0f} ms processor, "
        f"{1000 * own:.0f} ms without drawing ({over} of {len(steps)} beats above 100 ms)"
    )


def count_drawing():
    """A list whose one number grows by the processor time that the stand-in's views take to draw."""
    from slicerhost.views import SliceView

    spent, base = [0.0], next(each for each in SliceView.__mro__ if "_draw" in vars(each))
    draw = base._draw

    def counted(self, *arguments):
        began = time.thread_time()
        try:
            return draw(self, *arguments)
        finally:
            spent[0] += time.thread_time() - began

    base._draw = counted
    return spent


def write_large_cohort(folder):
    """Two labelled and two unlabelled scans of 320 x 320 x 80 voxels, an ellipsoid in another."""
    import json

    import numpy as np
    import SimpleITK

    rng = np.random.default_rng(0)
    k, j, i = np.ogrid[:80, :320, :320]
    cases = []
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(4):
        organ = ((i - 160) / (80 + 5 * number)) ** 2 + ((j - 150) / 90) ** 2 + ((k - 40) / 30) ** 2 < 1
        lesion = ((i - 190) / 30) ** 2 + ((j - 170) / 30) ** 2 + ((k - 40) / 15) ** 2 < 1
        grey = (rng.normal(300, 40, organ.shape) + 300 * organ + 150 * lesion).astype(np.int16)
        label = (organ.astype(np.uint8) + (organ & lesion)).astype(np.uint8)
        for name, array in (("images", grey), ("labels", label)):
            image = SimpleITK.GetImageFromArray(array)
            image.SetSpacing((1, 1, 1.5))
            SimpleITK.WriteImage(image, str(folder / name / f"c{number}.nii.gz"))
        case = {"id": f"c{number}", "role": "unlabelled", "images": [f"images/c{number}.nii.gz"]}
        if number < 2:
            case |= {"role": "labelled", "label": f"labels/c{number}.nii.gz"}
        cases.append(case)
    classes = [{"value": 1, "name": "organ"}, {"value": 2, "name": "lesion"}]
    (folder / "cohort.json").write_text(
        json.dumps({"schema_version": 1, "name": "large", "modality": "MR", "classes": classes, "cases": cases})
    )
    return folder / "cohort.json"


if __name__ == "__main__":
    main(sys.argv[1:])

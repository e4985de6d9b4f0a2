"""Render the panel with real results in the four views: ``screenshot.py docs/images/panel.png [--job FOLDER]``.

Without a finished job the generated abdomens are segmented by the bundled weights first, by a click like a user's.
With ``QT_QPA_PLATFORM=xcb`` the picture is what the X server's screen shows, not what Qt says it has drawn.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path)
    parser.add_argument("--job", type=Path, help="A finished job; otherwise one is run in build/screenshot.")
    parser.add_argument("--weights", help="Name or file; the bundled weights by default.")
    parser.add_argument("--sections", default="cases,run,results", help="Which are unfolded.")
    parser.add_argument("--width", type=int, default=1680)
    parser.add_argument("--height", type=int, default=1160)
    options = parser.parse_args(arguments)

    import slicerhost

    host = slicerhost.start()
    host.window.resize(options.width, options.height)
    panel = host.load_module(ROOT / "SSLSeg" / "SSLSeg.py")
    work = ROOT / "build" / "screenshot"
    if options.job:
        panel.ui.attachEdit.setCurrentPath(str(options.job))
        panel.ui.attachButton.click()
        host.wait_until(lambda: panel.ui.resultsTable.rowCount and panel.runSection.state == "idle", 120)
    else:
        from SSLSegPanel.loading import sample_steps

        panel.ui.outputEdit.setCurrentPath(str(work / "jobs"))
        panel.session.parameters.weights = options.weights or panel.session.parameters.weights
        panel.casesSection._load(sample_steps(work))
        host.wait_until(lambda: panel.ui.applyButton.enabled, 300)
        panel.ui.applyButton.click()
        host.wait_until(lambda: panel.runSection.state == "idle", 3600)
    show_review(host, panel)
    for name in ("cases", "method", "run", "results", "refine", "export", "setup"):
        getattr(panel.ui, f"{name}Section").collapsed = name not in options.sections.split(",")
    host.process_events()
    platform = host.app.property("platformName")
    if platform == "xcb":
        host.grab_screen(options.picture)
    else:
        host.grab(options.picture)
    print(f"{options.picture}, by the platform {platform}")


def show_review(host, panel):
    """One case accepted, the least certain of the others in the views and in 3D."""
    import slicer

    host.wait_until(lambda: not panel.session.stepper.busy, 60)
    last = panel.ui.resultsTable.rowCount - 1
    panel.ui.resultsTable.selectRow(last)
    if panel.ui.acceptButton.enabled and panel.ui.resultsTable.item(last, 3).text() == "To review":
        panel.ui.acceptButton.click()
    panel.ui.resultsTable.selectRow(0)
    panel.ui.show3DButton.click()
    panel.ui.attachEdit.setCurrentPath("")  # no paths of this machine in the picture
    panel.ui.exportEdit.setCurrentPath("~/SSLSeg/export")
    for node in slicer.util.getNodesByClass("vtkMRMLViewNode"):
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
    host.wait_until(lambda: panel.resultsSection.current().result.GetDisplayNode().GetVisibility3D(), 120)
    host.process_events()
    panel.logic.centre3D()


if __name__ == "__main__":
    main(sys.argv[1:])

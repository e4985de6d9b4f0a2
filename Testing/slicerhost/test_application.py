"""slicer.app, slicer.util's loading and saving, and the fakes."""

from pathlib import Path

import numpy as np
import pytest


def volume(name: str = "a"):
    import slicer

    matrix = np.diag([-0.5, -0.7, 3.0, 1.0])
    matrix[:3, 3] = [10, 20, -30]
    rng = np.random.default_rng(0)
    return slicer.util.addVolumeFromArray(rng.integers(0, 900, (5, 6, 7)).astype(np.int16), ijkToRAS=matrix, name=name)


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
def test_volumes_are_saved_and_loaded(host, tmp_path: Path, ending: str) -> None:
    import slicer

    node = volume()
    path = str(tmp_path / f"a.{ending}")
    assert slicer.util.saveNode(node, path)
    back = slicer.util.loadVolume(path, properties={"name": "back"})
    assert back.GetName() == "back"
    assert np.array_equal(slicer.util.arrayFromVolume(back), slicer.util.arrayFromVolume(node))
    assert slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetBackgroundLayer().GetVolumeNode() is back


def test_segmentations_are_saved_and_loaded(host, tmp_path: Path) -> None:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "labels")
    node.CreateDefaultDisplayNodes()
    source = volume()
    node.SetReferenceImageGeometryParameterFromVolumeNode(source)
    segment = node.GetSegmentation().AddEmptySegment("a", "Liver")
    mask = (slicer.util.arrayFromVolume(source) > 400).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, source)
    assert slicer.util.saveNode(node, str(tmp_path / "labels.seg.nrrd"))
    back = slicer.util.loadSegmentation(str(tmp_path / "labels.seg.nrrd"))
    assert back.GetSegmentation().GetNthSegment(0).GetName() == "Liver"
    identifier = back.GetSegmentation().GetNthSegmentID(0)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(back, identifier, source), mask)


def test_a_file_that_cannot_be_read_raises(host, tmp_path: Path) -> None:
    import slicer

    with pytest.raises(RuntimeError, match=r"missing\.nrrd"):
        slicer.util.loadVolume(str(tmp_path / "missing.nrrd"))


def test_the_application_says_what_it_is(host) -> None:
    import slicer

    assert (slicer.app.majorVersion, slicer.app.minorVersion) == (5, 12)
    assert Path(slicer.app.temporaryPath).is_dir()
    assert slicer.app.mrmlScene() is slicer.mrmlScene
    assert slicer.util.mainWindow().windowTitle
    assert slicer.util.tempDirectory().startswith(slicer.app.temporaryPath)
    assert slicer.app.testingEnabled()


def test_wait_cursor_and_render_blocker_work(host) -> None:
    import slicer

    with slicer.util.WaitCursor(), slicer.util.RenderBlocker():
        volume()


def test_a_console_process_of_slicer_util_runs(host) -> None:
    import sys

    import slicer

    process = slicer.util.launchConsoleProcess([sys.executable, "-c", "print('hello')"])
    slicer.util.logProcessOutput(process)
    process.stdout.close()
    assert process.returncode == 0


def test_dialogs_only_log_while_testing(host) -> None:
    import slicer

    slicer.util.errorDisplay("not shown")
    assert host.app.activeModalWidget() is None


def test_nothing_is_installed_but_everything_asked_for_is_known(host, tmp_path: Path) -> None:
    import slicer.packaging

    (tmp_path / "requirements.txt").write_text("# reasons\nnumpy>=1\nno-such-package-here>=2\n--no-deps\n")
    wanted = slicer.packaging.load_requirements(tmp_path / "requirements.txt")
    assert [str(each) for each in wanted] == ["numpy>=1", "no-such-package-here>=2"]
    assert not slicer.packaging.pip_check(wanted)
    slicer.packaging.pip_ensure(wanted, requester="Toy")
    slicer.packaging.pip_ensure("numpy>=1")
    host.set_testing(False)
    slicer.packaging.pip_ensure(wanted, requester="Toy")
    host.packaging.decline = True
    with pytest.raises(RuntimeError, match="declined"):
        slicer.packaging.pip_ensure("no-such-package-here")
    kinds = [kind for kind, _, _ in host.packaging.requests]
    assert kinds == ["pip_ensure skipped", "pip_ensure satisfied", "pip_ensure", "pip_ensure declined"]
    assert [str(each) for each in host.packaging.requests[2][1][0]] == ["no-such-package-here>=2"]


def test_extension_fakes_record_what_they_were_asked(host) -> None:
    from slicerhost.extension_fakes import install_nnunet_fake, install_pytorch_fake, remove_extension_fakes

    torch_fake, nnunet_fake = install_pytorch_fake(installed=False), install_nnunet_fake()
    try:
        import PyTorchUtils
        import SlicerNNUNetLib

        assert not PyTorchUtils.PyTorchUtilsLogic().torchInstalled()
        lines = []
        installer = SlicerNNUNetLib.InstallLogic(doAskConfirmation=False)
        installer.progressInfo.connect(lines.append)
        assert installer.setupPythonRequirements("nnunetv2>=2.8.1")
        assert (lines, nnunet_fake.installations) == (["Install nnunetv2>=2.8.1"], ["nnunetv2>=2.8.1"])
        assert torch_fake.installations == []
    finally:
        remove_extension_fakes()


def test_the_embedded_start_steps_aside_for_the_host(host) -> None:
    import slicer

    from SSLSegLib.scene import embedded

    assert embedded.in_application()
    assert embedded.current_scene() is slicer.mrmlScene


def test_without_a_main_window_a_module_runs_and_the_process_ends_well() -> None:
    """As with ``Slicer --no-main-window --testing``; a process of its own, since there is one host per process."""
    import subprocess
    import sys

    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import slicerhost
host = slicerhost.start(window=False)
import slicer
assert slicer.util.mainWindow() is None and slicer.app.layoutManager() is None
widget = host.load_module(Path({str(Path(__file__).parent / "toy" / "Toy.py")!r}))
volume = widget.logic.makeRamp()
node = widget.logic.process(volume, 100, False)
assert slicer.util.arrayFromSegmentBinaryLabelmap(node, "above", volume).any()
host.unload_module("Toy")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")

import json
import unittest

import pytest
import slicer
from slicerhost.extension_fakes import install_nnunet_fake, install_pytorch_fake, remove_extension_fakes


@pytest.fixture
def without(host, monkeypatch):
    """Say that packages are missing, as on a fresh Slicer."""

    from SSLSegPanel import session as session_module  # needs the host's qt: not before it has started
    from SSLSegPanel import setup_section

    def make(panel, *names):
        real = session_module.missing_packages

        def missing(wanted):
            return [name for name in wanted if name in names or name in real([name])]

        monkeypatch.setattr(session_module, "missing_packages", missing)
        monkeypatch.setattr(setup_section, "missing_packages", missing)
        panel.session.look_at_packages()

    yield make
    remove_extension_fakes()


def test_opening_the_panel_installs_and_asks_nothing(host, panel):
    assert host.packaging.requests == []


def test_a_missing_torch_is_told_where_the_run_starts_and_where_it_is_installed(panel, without):
    without(panel, "torch")
    assert not panel.ui.applyButton.enabled
    assert "7. Set-up" in panel.ui.applyButton.toolTip
    assert "torch" in panel.ui.setupLabel.text
    assert panel.ui.installButton.enabled


def test_declining_installs_nothing(host, panel, without, monkeypatch):
    without(panel, "torch")
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: False)
    panel.ui.installButton.click()
    assert host.packaging.requests == []


def test_torch_comes_from_its_extension_the_rest_from_the_requirements_without_torchvision(
    host, panel, without, monkeypatch
):
    without(panel, "torch", "nnunetv2")
    host.set_testing(False)
    host.packaging.missing = {"pooch"}
    torch, nnunet = install_pytorch_fake(installed=False), install_nnunet_fake()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: True)
    panel.ui.installButton.click()
    host.set_testing(True)
    assert torch.installations == [(None, ">=2.6")]
    assert nnunet.installations == ["nnunetv2>=2.8.1"]
    kind, _requirements, options = host.packaging.requests[0]
    assert kind == "pip_ensure"
    assert "torchvision" in options["skip_packages"]
    assert options["requester"] == "SSLSeg"


def test_a_missing_extension_is_named(panel, without, monkeypatch):
    said = []
    without(panel, "torch")
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: True)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    panel.ui.installButton.click()
    assert "Extensions Manager" in said[0]


def test_results_can_be_reviewed_without_torch(reviewing, without):
    without(reviewing, "torch", "sam2", "nnunetv2")
    reviewing.ui.resultsTable.selectRow(0)
    reviewing.ui.acceptButton.click()
    assert reviewing.ui.exportButton.enabled


def test_the_panel_opens_where_not_even_the_small_packages_are_there(host, panel, without):
    without(panel, "pydantic", "psutil")
    panel.refresh()
    assert "7. Set-up" in panel.ui.applyButton.toolTip


def test_the_selftest_that_slicer_runs_passes_here(host, panel):
    from SSLSegPanel import self_test

    result = unittest.TextTestRunner(verbosity=0).run(unittest.defaultTestLoader.loadTestsFromModule(self_test))
    assert result.testsRun == 3
    assert result.wasSuccessful(), result.failures + result.errors


def test_the_device_check_gives_the_outcome_of_a_real_operation(host, panel):
    panel.ui.checkDeviceButton.click()
    host.wait_until(lambda: "test operation" in panel.ui.deviceLabel.text, 120)


def test_the_check_measures_how_long_the_first_run_will_take(host, loaded):
    assert "time unknown" in loaded.ui.estimateLabel.text
    loaded.ui.checkDeviceButton.click()
    host.wait_until(lambda: "time unknown" not in loaded.ui.estimateLabel.text, 120)
    assert "200 slices to track: about" in loaded.ui.estimateLabel.text


def test_a_graphics_card_with_little_free_memory_is_told_before_the_run(host, loaded, monkeypatch):
    import importlib.util
    from types import SimpleNamespace

    import torch

    from SSLSegLib.weights import device

    path = loaded.logic.script("check_device.py")
    specification = importlib.util.spec_from_file_location("check_device", path)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    card = SimpleNamespace(device=torch.device("cuda"), outcome="A card; a test operation was correct.")
    monkeypatch.setattr(device, "resolve_device", lambda wish: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda which: (10_000, 8_000_000_000))
    found = script.main("cuda")
    assert found["device"] == "cuda"
    loaded.methodSection._show_device(json.dumps(found))
    assert "0.0 of 8.0 GB of its memory are free" in loaded.ui.deviceLabel.text
    assert "Only 0.0 GB of the graphics card's memory" in loaded.ui.estimateLabel.text
    loaded.methodSection.onDevice(3)
    assert "graphics card" not in loaded.ui.estimateLabel.text


def test_sample_data_is_registered_and_loads_without_network(host, panel, inputs, monkeypatch):
    import SampleData
    from SSLSegPanel import loading

    assert SampleData.SampleDataLogic().sourceForSampleName("SSLSegPhantom") is not None
    monkeypatch.setattr(loading, "sample_steps", lambda folder: loading.load_steps(inputs.cohort))
    volumes = SampleData.SampleDataLogic().downloadSample("SSLSegPhantom")
    assert len(volumes) == 4

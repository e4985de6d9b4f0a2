"""Opt-in: the panel's run on a graphics card, where there is one. Nothing is computed elsewhere instead."""

import pytest
import torch
from helpers_module import results_of, segment_masks

DEVICES = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.mark.parametrize("device", [
    pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"there is no {name} device"))
    for name, there in DEVICES.items()
])  # fmt: skip
def test_a_click_computes_on_the_card_and_the_labels_are_those_of_the_cpu(host, loaded, batch_job, device):
    from SSLSegPanel.method_section import DEVICES as ENTRIES
    from SSLSegPanel.session import set_setting

    loaded.ui.deviceBox.setCurrentIndex(ENTRIES.index(device))
    loaded.methodSection.onDevice(ENTRIES.index(device))
    try:
        loaded.ui.applyButton.click()
        host.wait_until(lambda: loaded.runSection.state == "idle", 300)
    finally:
        set_setting("Device", "auto")
    assert "Finished" in loaded.ui.statusLabel.text
    assert "as asked for; a test operation was correct" in loaded.ui.statusLabel.text
    expected = results_of(batch_job)
    for case_id in ("c2", "c3"):
        case = loaded.session.cases.find(case_id)
        shown = segment_masks(case.result, case.volume)
        agreed = (shown["class 1"] + 2 * shown["class 2"] == expected[case_id]).mean()
        assert agreed > 0.98, (
            case_id
        )  # sums differ in the last bits, and random weights are near the threshold everywhere

"""Choosing a device: tried before it is promised, and never silently another one."""

import pytest
import torch

from SSLSegLib.errors import SSLSegError
from SSLSegLib.weights import device as device_module
from SSLSegLib.weights.device import DeviceError, resolve_device


def test_the_cpu_is_tried_and_said():
    choice = resolve_device("cpu")
    assert choice.device == torch.device("cpu")
    assert "CPU" in choice.outcome
    assert "test operation was correct" in choice.outcome


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="a GPU is there")
def test_auto_without_a_gpu_says_why_it_is_the_cpu():
    choice = resolve_device("auto")
    assert choice.device.type == "cpu"
    assert "no cuda:" in choice.outcome
    assert "no mps:" in choice.outcome


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize("wish", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_missing_gpu_is_an_error_with_the_way_out(wish):
    with pytest.raises(DeviceError, match="cannot be used") as caught:
        resolve_device(wish)
    assert "device auto or cpu" in str(caught.value)
    assert isinstance(caught.value, SSLSegError)


@pytest.mark.parametrize("wish", ["gpu", "meta", "cuda:x", ""])
def test_other_names_are_refused(wish):
    with pytest.raises(DeviceError):
        resolve_device(wish)


def test_a_gpu_that_computes_wrongly_is_not_used(monkeypatch):
    """The fake GPU answers in the CPU's place, once with noise and once with an error of the driver."""
    real = device_module._test_operation

    def noisy(device):
        return real(torch.device("cpu")) + (1 if device.type == "cuda" else 0)

    def failing(device):
        if device.type == "cuda":
            raise RuntimeError("CUDA error: out of memory\nmore lines")
        return real(device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for fake, reason in ((noisy, "wrong result"), (failing, "CUDA error: out of memory")):
        monkeypatch.setattr(device_module, "_test_operation", fake)
        with pytest.raises(DeviceError, match=reason):
            resolve_device("cuda")
        choice = resolve_device("auto")
        assert choice.device.type == "cpu"
        assert reason in choice.outcome
    with pytest.raises(DeviceError, match="there are 1 CUDA GPUs"):
        resolve_device("cuda:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_real_gpu_is_found_and_named():
    choice = resolve_device("auto")
    assert choice.device.type == "cuda"
    assert torch.cuda.get_device_name(0) in choice.outcome

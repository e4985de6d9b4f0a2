"""Files of weights that hold code, lie about their tensors, or unpack to more than they are."""

import functools
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from hostile_bytes import damaged_bytes, hostile_value
from hostile_guard import Format
from hypothesis import strategies as st

from SSLSegLib.weights.reading import read_state_dict

__all__ = ["FORMATS", "Payload", "torch_file"]


class Payload:
    """A pickle that would run a command when it is read by anything that trusts it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def torch_file(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _odd_contents() -> list[Any]:
    small = torch.arange(12.0).reshape(3, 4)
    return [
        {"model": {"a": small}},
        {"a": small},
        {"model": {}},
        {"model": {"a": 3}},
        {"model": {5: small}},
        {"model": [small]},
        [small],
        small,
        None,
        {"model": {"a": torch.ones(1).expand(10**11)}},
        {"model": {"a": torch.ones(1, dtype=torch.float16).expand(10**11)}},
        {"model": {"a": torch.ones(1, dtype=torch.int8).expand(10**6, 10**6)}},
        {"model": {"a": small.to_sparse()}},
        {"model": {"a": torch.empty(10**12, device="meta")}},
        {"model": {"a": torch.quantize_per_tensor(small, 0.1, 0, torch.quint8)}},
        {"model": {"a": small.requires_grad_()}},
        {"model": {"a": torch.tensor([complex(1, 2)])}},
        {"model": {"a": Payload("echo dead > ../canary")}},
        {"model": {"a": small}, "extra": Payload("echo dead > ../canary")},
    ]


@functools.cache
def _odd_files() -> list[bytes]:
    files = []
    for content in _odd_contents():
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            try:
                files.append(torch_file(content, **options))
            except Exception:  # what torch itself does not write is no case
                continue
    return [*files, pickle.dumps(Payload("echo dead > ../canary")), zip_bomb(), claims_too_much()]


def zip_bomb(megabytes: int = 1200) -> bytes:
    """torch's format with its tensor's bytes deflated: a small file of more than a gigabyte."""
    plain = zipfile.ZipFile(io.BytesIO(torch_file({"model": {"a": torch.zeros(4)}})))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name in plain.namelist():
            if "/data/" not in name:
                packed.writestr(name, plain.read(name))
                continue
            with packed.open(name, "w", force_zip64=True) as stream:
                for _ in range(megabytes // 100):
                    stream.write(_ZEROS)
    return buffer.getvalue()


_ZEROS = bytes(100 * 2**20)


def claims_too_much() -> bytes:
    """A pickle that names a tensor of many more numbers than its storage holds."""
    content = torch_file({"model": {"a": torch.zeros(7, 11)}})
    return content.replace(b"K\x07K\x0b\x86", b"K\xffK\xfe\x86")


@functools.cache
def _safetensors() -> bytes:
    from safetensors.torch import save

    return save({"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float16)})


@st.composite
def safetensors(draw: st.DrawFn) -> bytes:
    valid = _safetensors()
    (length,) = struct.unpack_from("<Q", valid)
    header, data = json.loads(valid[8 : 8 + length]), valid[8 + length :]
    entry = draw(st.sampled_from(sorted(header)))
    field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "new"]))
    value = draw(
        st.one_of(
            hostile_value,
            st.sampled_from([[0, 2**62], [0, 0], [-1, 4], [8, 4], [10**9, 10**9], [2**40], ["F64"], "F64", "I8", "F4"]),
        )
    )
    header[entry] = {**header[entry], field: value}
    text = json.dumps(header).encode()
    size = draw(st.sampled_from([len(text), len(text), len(text), 0, 1, len(text) - 1, 2**32, 2**63, 2**64 - 1]))
    content = struct.pack("<Q", size) + text + data
    return draw(st.one_of(st.just(content), st.just(content), damaged_bytes(content), damaged_bytes(valid)))


def _reader(name: str):
    def read(folder: Path, content: bytes) -> None:
        path = folder / name
        path.write_bytes(content)
        here = os.getcwd()
        os.chdir(folder)  # a payload would write ../canary
        try:
            state = read_state_dict(path)
        finally:
            os.chdir(here)
        assert all(isinstance(key, str) for key in state)
        for tensor in state.values():
            assert tensor.device.type == "cpu"
            assert tensor.layout == torch.strided
            torch.isfinite(tensor).all()
        assert sum(tensor.numel() for tensor in state.values()) <= 4 * len(content)

    return read


_odd = st.deferred(lambda: st.sampled_from(_odd_files()))

FORMATS = [
    Format("checkpoint contents", _odd, _reader("x.pt")),
    Format("checkpoint damaged", _odd.filter(lambda file: len(file) < 2**16).flatmap(damaged_bytes), _reader("x.pt")),
    Format("safetensors", safetensors(), _reader("x.safetensors")),
]

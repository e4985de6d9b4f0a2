"""Models with random weights, built once, and a real web server on loopback that can behave badly."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from SSLSegLib.weights import transfer
from SSLSegLib.weights.configuration import Sam2Configuration
from SSLSegLib.weights.sam2_model import build_sam2

SMALL = Sam2Configuration(
    base="sam2.1_hiera_t",
    image_size=128,
    overrides={
        "image_encoder": {
            "trunk": {"embed_dim": 32, "stages": [1, 2, 3, 1], "global_att_blocks": [5]},
            "neck": {
                "d_model": 64,
                "backbone_channel_list": [256, 128, 64, 32],
                "position_encoding": {"num_pos_feats": 64},
            },
        },
        "memory_attention": {
            "d_model": 64,
            "num_layers": 2,
            "layer": {
                "d_model": 64,
                "dim_feedforward": 128,
                "self_attention": {"embedding_dim": 64},
                "cross_attention": {"embedding_dim": 64, "kv_in_dim": 32},
            },
        },
        "memory_encoder": {
            "in_dim": 64,
            "out_dim": 32,
            "position_encoding": {"num_pos_feats": 32},
            "mask_downsampler": {"embed_dim": 64},
            "fuser": {"layer": {"dim": 64}},
        },
    },
)


@pytest.fixture(scope="session")
def small() -> Sam2Configuration:
    """The tiny configuration reduced to about two million parameters."""
    return SMALL


@pytest.fixture(scope="session")
def small_model(small):
    torch.manual_seed(1)
    return build_sam2(small)


@pytest.fixture(scope="session")
def tiny_model():
    torch.manual_seed(2)
    return build_sam2(Sam2Configuration(image_size=512))


@pytest.fixture(scope="session")
def official_file(tiny_model, tmp_path_factory):
    """A file in the format of MedSAM2's: the state dict under ``model``, extras of training beside it."""
    path = tmp_path_factory.mktemp("official") / "MedSAM2_2411.pt"
    torch.save({"model": tiny_model.state_dict(), "epoch": 7, "steps": {"train": 3}}, path)
    return path


@pytest.fixture(autouse=True)
def weights_folder(tmp_path_factory, monkeypatch):
    """An empty weights folder of the test's own instead of the user's."""
    folder = tmp_path_factory.mktemp("weights")
    monkeypatch.setenv("SSLSEG_WEIGHTS", str(folder))
    return folder


# --- a web server ------------------------------------------------------------------------------------------------


@dataclass
class Behaviour:
    """What the server holds and how it fails. ``cut_after``: bytes of a body after which it hangs up (once each)."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"v1"'
    cut_after: list[int] = field(default_factory=list)
    fail_with: list[int] = field(default_factory=list)
    requests: list[dict] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self):
        behaviour = self.behaviour
        headers = {name: self.headers[name] for name in ("Range", "If-Range") if self.headers[name]}
        behaviour.requests.append({"path": self.path, **headers})
        if behaviour.fail_with:
            return self.send_error(behaviour.fail_with.pop(0))
        content = behaviour.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = 0
        asked = headers.get("Range")
        same = headers.get("If-Range") in (None, behaviour.etag)
        if behaviour.ranges and asked and same:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        if behaviour.etag:
            self.send_header("ETag", behaviour.etag)
        self.end_headers()
        if behaviour.cut_after:
            body = body[: behaviour.cut_after.pop(0)]
        self.wfile.write(body)
        return None

    def log_message(self, *arguments):
        pass


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that was killed on purpose is nothing to report."""


class Web:
    """``with Web() as web``: ``web.url`` is its address, ``web.behaviour`` what it does."""

    def __enter__(self):
        self.behaviour = Behaviour()
        handler = type("Handler", (_Handler,), {"behaviour": self.behaviour})
        self._server = _QuietServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *problem):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _catalogue_of(url, files):
    """Text of a Models.json with one entry, ``example``, of ``{name: (size, sha256)}``."""
    entry = {
        "name": "example",
        "kind": "dinov2",
        "purpose": "Testing.",
        "source": {"kind": "web", "folder": url},
        "files": [{"name": name, "size": size, "sha256": digest} for name, (size, digest) in files.items()],
        "licence": "CC-BY-4.0",
        "licence_url": "https://creativecommons.org/licenses/by/4.0/",
        "licence_notice": "For tests only.",
        "citation": "Nobody. Nothing. 2026.",
    }
    return json.dumps({"schema_version": 1, "models": [entry]})


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr(transfer, "_PAUSE", 0.01)
    with Web() as server:
        yield server


@pytest.fixture
def example_catalogue(web, tmp_path_factory, monkeypatch):
    """Call with ``{file name: (size, sha256)}``: the catalogue then holds one entry, ``example``, on the server."""

    def install(files):
        resources = tmp_path_factory.mktemp("resources")
        (resources / "Models.json").write_text(_catalogue_of(web.url, files))
        monkeypatch.setenv("SSLSEG_RESOURCES", str(resources))

    return install

"""One file over HTTP: resumed where it broke off, checked before it takes its name. Imports no torch.

Neither pooch (which starts over) nor the hub's client (which knows no plain web server) resumes all of our sources,
so the loop around ``requests`` is our own.
"""

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .. import __version__
from ..errors import WeightsError
from ..files import sha256_of
from ..progress import Progress, silent

if TYPE_CHECKING:
    import requests

__all__ = ["fetch_file"]

_CHUNK = 1 << 16  # what a broken connection costs at most: requests drops the chunk it was filling
_TELL_EVERY = 1 << 20  # bytes between progress events
_TIMEOUT = (15, 60)  # seconds to connect; seconds without a byte
_ATTEMPTS = 5  # in a row without a byte gained
_PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one


def fetch_file(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress = silent,
) -> str:
    """Download ``url`` to ``target`` and return the file's SHA-256.

    Bytes gather in ``target`` + ``.part``, which stays when the transfer breaks off, so that the next attempt of this
    call, or the next call, asks only for the rest. Size and SHA-256 are checked before the file takes its name.

    Args:
        url: An http or https address.
        target: Where the file goes.
        size: Expected bytes, if known; otherwise the server's word is taken.
        sha256: Expected digest, if known.
        progress: Gets ``progress`` events with ``stage="download"``, ``file``, ``done`` and ``total`` bytes.

    Raises:
        WeightsError: No connection, the server refuses, not enough disk space, or another file than expected.
    """
    part = _Part(Path(target), sha256)
    part.path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while size is None or part.size != size:  # equal: complete, but the process ended before it was checked
        before = part.size
        try:
            _transfer(url, part, size, progress)
            break
        except _BrokenOffError as broken:
            failures = 1 if part.size > before else failures + 1
            if failures >= _ATTEMPTS:
                raise WeightsError(
                    f"The download of {part.name} broke off after {part.size} bytes: {broken}.",
                    remedy=f"Run the same command again, it continues there; or fetch {url} elsewhere and copy the "
                    f"file to {target}.",
                ) from broken
            time.sleep(_PAUSE * 2 ** (failures - 1))
    return part.finish(url, sha256)


class _BrokenOffError(Exception):
    """The connection failed or ended early: worth another attempt."""


@dataclass
class _Part:
    """The bytes so far, and the server's mark (ETag) of the version they are from."""

    target: Path
    sha256: str | None

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def path(self) -> Path:
        return self.target.with_name(f"{self.name}.part")

    @property
    def mark_path(self) -> Path:
        return self.target.with_name(f"{self.name}.part.etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def request_headers(self) -> dict[str, str]:
        """Ask for the rest, if it is certain that rest and part belong together: by the mark, or by the digest."""
        mark = self.mark_path.read_text(encoding="utf-8") if self.mark_path.is_file() else None
        if not self.size or (mark is None and self.sha256 is None):
            return {}
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": mark} if mark else {})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.mark_path.unlink(missing_ok=True)

    def remember(self, mark: str) -> None:
        if mark.startswith('"'):  # a weak one (W/"...") does not vouch for the bytes
            self.mark_path.write_text(mark, encoding="utf-8")

    def finish(self, url: str, sha256: str | None) -> str:
        """Check the whole and give it its name."""
        digest = sha256_of(self.path)
        if sha256 is not None and digest != sha256:
            self.discard()
            raise WeightsError(
                f"What {url} gave is not {self.name}: its SHA-256 is {digest}, expected {sha256}. It was deleted.",
                remedy="Try again; if it stays so, the file at the source was replaced: do not use it.",
            )
        with open(self.path, "rb+") as whole:
            os.fsync(whole.fileno())
        os.replace(self.path, self.target)
        self.discard()
        return digest


def _transfer(url: str, part: _Part, size: int | None, progress: Progress) -> None:
    """One request for what is missing, appended to the part; returns when the file is complete."""
    import requests

    headers = {"User-Agent": f"sslseg/{__version__}", "Accept-Encoding": "identity"} | part.request_headers()
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start, total = _range_of(response, url, part, size)
            if start == 0:
                part.discard()
            part.remember(response.headers.get("ETag", ""))
            _require_space(part.path.parent, (total or 0) - start, part.name)
            done = told = start
            with open(part.path, "ab") as opened:
                progress("progress", stage="download", file=part.name, done=done, total=total)
                for chunk in response.iter_content(_CHUNK):
                    opened.write(chunk)
                    done += len(chunk)
                    if done - told >= _TELL_EVERY or done == total:
                        progress("progress", stage="download", file=part.name, done=done, total=total)
                        told = done
    except requests.RequestException as problem:
        what = "no connection to" if isinstance(problem, requests.ConnectionError) else "trouble with"
        raise _BrokenOffError(f"{what} {urlsplit(url).hostname} ({type(problem).__name__})") from problem
    if total is not None and done != total:
        raise _BrokenOffError(f"the server closed the connection at {done} of {total} bytes")


def _range_of(response: "requests.Response", url: str, part: _Part, size: int | None) -> tuple[int, int | None]:
    """Where the answer's first byte belongs in the file, and how long the file is, if the server says so."""
    if response.status_code == 416:  # nothing follows our part, so it is no part of this file
        part.discard()
        raise _BrokenOffError("the part on disk does not belong to the file")
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise _BrokenOffError(f"the server answers {response.status_code} {response.reason}")
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != part.size:
            part.discard()
            raise _BrokenOffError("the server sent another part than the one asked for")
        start, total = int(found[1]), int(found[2])
    elif response.status_code == 200:
        length = response.headers.get("Content-Length")
        start, total = 0, int(length) if length else size
    else:
        raise WeightsError(
            f"The server refuses {url}: {response.status_code} {response.reason}.",
            remedy="Open the address in a browser: it may have moved, or a proxy may be in the way.",
        )
    if size is not None and total != size:
        part.discard()
        kind = response.headers.get("Content-Type", "unknown type")
        raise WeightsError(
            f"{url} offers {total} bytes ({kind}) instead of the {size} of {part.name}.",
            remedy="A proxy may answer with a page of its own, or the file was replaced: fetch it by hand and compare.",
        )
    return start, total


def _require_space(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder} has {free / 1e6:.0f} MB free, but {name} needs {needed / 1e6:.0f} MB more.",
            remedy="Free some space, or choose another folder with --folder or SSLSEG_WEIGHTS.",
        )

"""Strategies that damage what was valid: values in JSON, and bytes."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["SPECIAL_TEXT", "damaged_bytes", "hostile_value", "mutated_json"]

SPECIAL_TEXT = [
    "",
    ".",
    "..",
    "../canary",
    "../../canary",
    "/etc/passwd",
    "/dev/zero",
    "C:\\Windows\\x",
    "..\\..\\canary",
    "~/x",
    "con",
    "nul.txt",
    "a/b",
    "a\x00b",
    "x" * 300,
    "d/" * 3000 + "x",
    "Ä漢字🧠",
    "\ud800",
    "${jndi}",
    "<script>alert(1)</script>",
    "%s%n",
    "1e999",
]

_numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, float("inf"), float("-inf"), float("nan")])
_leaf = st.one_of(st.none(), st.booleans(), _numbers, st.sampled_from(SPECIAL_TEXT), st.text(max_size=20))
hostile_value = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@st.composite
def mutated_json(draw: st.DrawFn, valid: Any) -> bytes:
    """A valid document with a few values replaced, removed or added, sometimes damaged as text too."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        content = _mutated(draw, content)
    text = json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return draw(st.one_of(*[st.just(text)] * 4, damaged_bytes(text), st.sampled_from(_NO_DOCUMENTS)))


_NO_DOCUMENTS = [
    b"",
    b"null",
    b"[]",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b"9" * 10_000,
    b'{"schema_version": 1e999}',
    b'{"schema_version": 99}',
    b'{"schema_version": true}',
    b'{"schema_version": 1, "schema_version": 99}',
]


def _mutated(draw: st.DrawFn, content: Any) -> Any:
    """Walk down to some value and change it."""
    if isinstance(content, dict) and content and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(content)))
        action = draw(st.integers(0, 9))
        if action == 0:
            return {name: value for name, value in content.items() if name != key}
        if action == 1:
            return {**content, draw(st.sampled_from([*SPECIAL_TEXT, "extra"])): draw(hostile_value)}
        return {**content, key: _mutated(draw, content[key])}
    if isinstance(content, list) and content and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(content) - 1))
        return [*content[:index], _mutated(draw, content[index]), *content[index + draw(st.integers(0, 1)) :]]
    return draw(hostile_value)


@st.composite
def damaged_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes cut, overwritten, or with something put in between."""
    at = draw(st.integers(0, max(len(valid) - 1, 0)))
    return draw(
        st.one_of(
            st.just(valid[:at]),
            st.binary(min_size=1, max_size=16).map(lambda some: valid[:at] + some + valid[at + len(some) :]),
            st.binary(min_size=1, max_size=16).map(lambda some: valid[:at] + some + valid[at:]),
        )
    )

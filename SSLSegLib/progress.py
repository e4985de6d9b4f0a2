"""How a room tells what it is doing without knowing who listens (a terminal, an event log, a panel)."""

from typing import Any, Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """A listener. Events: ``stage`` (stage, total), ``progress`` (stage, done, total, case), ``result`` (case),
    ``warning`` (message, case), ``metric`` (any numbers). All values are JSON-serialisable."""

    def __call__(self, event: str, **fields: Any) -> None: ...


def silent(event: str, **fields: Any) -> None:
    """A listener that does not listen."""

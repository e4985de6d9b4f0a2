"""Where the files that ship beside the library lie."""

import os
from pathlib import Path

__all__ = ["resource"]


def resource(name: str) -> Path:
    """Path of a file in ``Resources/`` (the folder beside the library; ``SSLSEG_RESOURCES`` names another one)."""
    folder = os.environ.get("SSLSEG_RESOURCES")
    return (Path(folder) if folder else Path(__file__).resolve().parent.parent / "Resources") / name

"""The host's own tests import the package from this folder's parent."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from slicerhost.fixtures import host, slicer_host  # noqa: F401

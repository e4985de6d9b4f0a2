"""What ctest runs inside Slicer: the module's self-test."""

import SSLSeg  # noqa: F401 - puts the panel's folder on the path
from SSLSegPanel.self_test import CasesTest, PrepareTest, ReviewTest

__all__ = ["CasesTest", "PrepareTest", "ReviewTest"]

"""What ctest runs inside Slicer: the module's self-test."""

from SSLSegPanel.self_test import CasesTest, PrepareTest, ReviewTest

import SSLSeg  # noqa: F401 - puts the panel's folder on the path

__all__ = ["CasesTest", "PrepareTest", "ReviewTest"]

"""Progress over several cases."""

from collections.abc import Callable, Iterable
from typing import Any

from SSLSegLib.cases.cohort import Case
from SSLSegLib.progress import Progress

__all__ = ["Tracking"]

STAGE = "Segmenting"


class Tracking:
    """Turns the engine's count of frames per insertion into one count over all cases that are to be segmented."""

    def __init__(self, progress: Progress, frames: Iterable[int]) -> None:
        """``frames``: how many are tracked for each case that is to be segmented."""
        self.progress = progress
        self._before = 0
        self._total = sum(frames)
        progress("stage", stage=STAGE, total=self._total)

    def encoding(self, case: Case) -> Progress:
        def tell(event: str, *, done: int, total: int, **_: Any) -> None:
            self.progress(event, stage=STAGE, done=self._before, total=self._total, case=case.id, encoded=done)

        return tell

    def registering(self, case: Case) -> Callable[[int], None]:
        """To be told how many labelled cases are registered to one that is to be segmented."""

        def tell(done: int) -> None:
            self.progress("progress", stage=STAGE, done=self._before, total=self._total, case=case.id, registered=done)

        return tell

    def tracking(self, case: Case) -> Progress:
        def tell(event: str, *, done: int, total: int, **_: Any) -> None:
            self.progress(event, stage=STAGE, done=self._before + done, total=self._total, case=case.id)
            if done == total:
                self._before += total

        return tell

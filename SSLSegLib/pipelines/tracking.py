"""Progress over several cases."""

from collections.abc import Sequence
from typing import Any

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.pipelines.encoding import LabelledCase
from SSLSegLib.progress import Progress

__all__ = ["Tracking"]

STAGE = "Segmenting"


class Tracking:
    """Turns the engine's count of frames per insertion into one count over all cases that are to be segmented."""

    def __init__(
        self,
        progress: Progress,
        cohort: Cohort,
        cases: Sequence[Case],
        labelled: Sequence[Sequence[LabelledCase]],
        insertions: int,
    ) -> None:
        from SSLSegLib.cases.reading import read_geometry

        self.progress = progress
        self._before = 0
        self._total = 0
        for case, others in zip(cases, labelled, strict=True):
            slices = read_geometry(cohort, case).shape[0]
            used = sum(each.shows(segment) for each in others for segment in cohort.classes)
            self._total += slices * min(insertions, slices) * used
        progress("stage", stage=STAGE, total=self._total)

    def encoding(self, case: Case) -> Progress:
        def tell(event: str, *, done: int, total: int, **_: Any) -> None:
            self.progress(event, stage=STAGE, done=self._before, total=self._total, case=case.id, encoded=done)

        return tell

    def tracking(self, case: Case) -> Progress:
        def tell(event: str, *, done: int, total: int, **_: Any) -> None:
            self.progress(event, stage=STAGE, done=self._before + done, total=self._total, case=case.id)
            if done == total:
                self._before += total

        return tell

"""Where the parts of a run lie."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RECORD", "UniMatchFolder"]

RECORD = "model.json"
"""In the model's folder; written last."""


@dataclass(frozen=True)
class UniMatchFolder:
    """What lies where::

    slices/     prepared slices; can be deleted when the training has ended
    training/   training.json, state.pt, curve.jsonl
    processes/  what each process of a training on several devices was told and said
    model/      model.json and the weights; written when the training has ended
    results/    pseudo-labels, if no other place is named
    """

    path: Path

    @property
    def slices(self) -> Path:
        return self.path / "slices"

    @property
    def training(self) -> Path:
        return self.path / "training"

    @property
    def model(self) -> Path:
        return self.path / "model"

    def result(self, case_id: str) -> Path:
        """Result folder of a case."""
        return self.path / "results" / case_id

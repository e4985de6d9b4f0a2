"""The events of a round's folds as events of the round, for those who listen to the run."""

from collections.abc import Mapping
from typing import Any

from SSLSegLib.progress import Progress
from SSLSegLib.selftraining.children import Child

__all__ = ["Follower"]


class Follower:
    """Epochs of all folds make one bar.

    Args:
        name: Of the round.
        folds: Stem of a child -> its fold, of those that are trained now.
        finished: How many folds were finished before.
        epochs: Of each fold.
        progress: Who listens.
    """

    def __init__(self, name: str, folds: Mapping[str, int], finished: int, epochs: int, progress: Progress) -> None:
        self.name, self.folds, self.progress, self.epochs = name, folds, progress, epochs
        self.total = (finished + len(folds)) * epochs
        self.done = dict.fromkeys(folds, 0) | {"finished": finished * epochs}
        progress("stage", stage=f"training {name}", total=self.total)

    def __call__(self, child: Child, event: dict[str, Any]) -> None:
        fields = {name: value for name, value in event.items() if name not in ("schema_version", "time", "event")}
        if event["event"] == "metric":
            self.progress("metric", round=self.name, fold=self.folds[child.stem], **fields)
            self.done[child.stem] = fields["epoch"]
            self.progress("progress", stage=f"training {self.name}", done=sum(self.done.values()), total=self.total)
        elif event["event"] == "progress":
            self.progress("predicted", round=self.name, fold=self.folds[child.stem], case=fields["case"])
        else:
            self.progress(event["event"], **fields)

"""Progress in a terminal: the stage, what is done of it, and the time left."""

import dataclasses
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

from SSLSegLib.jobs.estimate import Estimate

__all__ = ["TerminalProgress"]


class TerminalProgress:
    """A progress listener with one bar per stage, as a context manager.

    Without a terminal (a log file, a pipe) it prints one line per stage and result instead.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "TerminalProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: str, **fields: Any) -> None:
        """Show one event; unknown ones are passed over."""
        show = getattr(self, f"_on_{event}", None)
        if show is not None:
            show(**fields)

    def _on_stage(self, stage: str, total: int | None = None, **_: Any) -> None:
        if stage in self._tasks:
            self._bars.reset(self._tasks[stage], total=total)
        else:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        if not self.console.is_terminal:
            self.console.print(stage if total is None else f"{stage} ({total})", highlight=False)

    def _on_progress(self, stage: str, done: int, total: int | None = None, case: str | None = None, **_: Any) -> None:
        if stage not in self._tasks:
            self._on_stage(stage, total)
        description = f"{stage} {case}" if case else stage
        self._bars.update(self._tasks[stage], completed=done, total=total, description=description)

    def _on_estimate(self, **figures: Any) -> None:
        known = {field.name for field in dataclasses.fields(Estimate)}
        found = Estimate(**{name: value for name, value in figures.items() if name in known})
        self.console.print(f"Expected for this run: {found.in_words()}.", soft_wrap=True, highlight=False)

    def _on_result(self, case: str, **fields: Any) -> None:
        seconds = fields.get("seconds")
        self.console.print(f"  {case} done" + (f" in {seconds:.0f} s" if seconds is not None else ""), highlight=False)

    def _on_warning(self, message: str, case: str | None = None, **_: Any) -> None:
        where = f"Case {case}: " if case else ""
        self.console.print(f"Note: {where}{message}", style="yellow", highlight=False, markup=False)

"""A bar on standard error that is drawn only when told to: a thread that redraws it would cost the work it shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """One line: words, and a bar beside them where there is room. Draws nothing where standard error is no terminal."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._drawn = False

    def show(self, said: str, share: float) -> None:
        """Draw it anew, filled to the share from 0 to 1."""
        if self._progress is None:
            return
        self._progress.update(self._progress.tasks[0].id, description=f"{share:.0%} {said}", completed=share)
        if self._drawn:
            self._progress.refresh()
        else:
            self._progress.start()
            self._drawn = True

    def hide(self) -> None:
        """Take it off the screen, before something else is printed there."""
        if self._progress is not None and self._drawn:
            self._progress.stop()
            self._drawn = False


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar, gone at the end."""
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.add_task("", total=1.0)
    shown = Bar(progress)
    try:
        yield shown
    finally:
        shown.hide()

"""The progress bar of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(steps: int, *, enabled: bool) -> Iterator[Callable[[int, float], None]]:
    """A bar over `steps` that shows the loss; yields the function that moves it, a no-op unless enabled.

    Raises ImportError where it is wanted and rich is missing.
    """
    if not enabled:
        yield lambda step, loss: None
        return
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError("the progress bar needs rich: pip install 'memrecon-fast[audit]'") from error
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task("training", total=steps, loss="…")
        yield lambda step, loss: bar.update(task, completed=step, loss=f"{loss:.2e}")

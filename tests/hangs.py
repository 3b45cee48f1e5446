"""What every task of every event loop is waiting for: pytest-timeout shows the stacks of threads only."""

from __future__ import annotations

import asyncio
import gc
import traceback
from typing import Any


def tasks_of_all_loops() -> str:
    """Return the stack of each task that is not done, on all open event loops of all threads, outermost call first."""
    loops = [each for each in gc.get_objects() if issubclass(type(each), asyncio.AbstractEventLoop)]
    return "\n".join(
        f"{loop!r}\n  {task!r}\n{_stack(task.get_coro())}"
        for loop in loops
        if not loop.is_closed()
        for task in asyncio.all_tasks(loop)
    )


def _stack(awaitable: Any) -> str:
    """Return the lines at which a coroutine and what it awaits stand; ``Task.get_stack()`` has the first one only."""
    lines = []
    while awaitable is not None:
        for kind, awaited in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                lines += traceback.format_list(traceback.StackSummary.extract([(frame, frame.f_lineno)]))
                awaitable = getattr(awaitable, awaited)
                break
        else:
            lines.append(f"  awaits {awaitable!r}\n")
            break
    return "".join(lines)

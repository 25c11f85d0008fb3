"""What is being explained and for whom, so that it can be broken off by a click, or when its visitor leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event


class Runs:
    """Explanations under way, each in a thread of its own."""

    def __init__(self) -> None:
        self._running: list[tuple[str, Event]] = []
        self._closed = False

    @contextmanager
    def of(self, visitor: str) -> Iterator[Callable[[], bool]]:
        """Count what is done inside the `with` block as the visitor's; gives the question whether it shall end."""
        run = visitor, Event()
        self._running.append(run)
        if self._closed:  # it began while all were told to end
            run[1].set()
        try:
            yield run[1].is_set
        finally:
            self._running.remove(run)

    def stop(self, visitor: str) -> bool:
        """Let the visitor's end soon; says whether there was any."""
        ending = [event for whose, event in list(self._running) if whose == visitor]
        for event in ending:
            event.set()
        return bool(ending)

    def stop_all(self) -> None:
        """Let everybody's end soon, and whatever begins later."""
        self._closed = True
        for _, event in list(self._running):
            event.set()

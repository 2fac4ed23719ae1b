"""The rounds: every system measures in turn, again and again, so that a noisy minute of the machine meets them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.models import Model
from benchmarks.results import Column, Measured
from benchmarks.system import Feed, System, SystemFailed, Window

Tell = Callable[[str], None]
"""Says what is about to be measured."""
Failures = dict[tuple[str, Column], str]
"""(model, column) -> why there is no number."""
Turn = tuple[System, Feed, Window]


@dataclass(slots=True)
class Rounds:
    """Measures models one after the other; whoever calls reads `failures` afterwards."""

    rounds: int
    feeds: Sequence[Feed]
    tell: Tell
    failures: Failures = field(default_factory=dict)

    def measure(self, model: Model, systems: Sequence[System]) -> list[Measured]:
        """All windows of a model. A system that fails is closed and left out, and the others go on."""
        windows: dict[tuple[Column, Feed], list[Window]] = {}
        for system, feed, window in self._beside(model, systems) if model.fits_beside else self._apart(model, systems):
            windows.setdefault((_column(system), feed), []).append(window)
        return [
            Measured(model=model.name, input=feed, column=column, windows=found)
            for (column, feed), found in windows.items()
            if (model.name, column) not in self.failures
        ]

    def _beside(self, model: Model, systems: Sequence[System]) -> Iterator[Turn]:
        """All systems stay open, and those that do not measure wait."""
        with ExitStack() as stack:
            places = {_column(system): stack.enter_context(ExitStack()) for system in systems}
            for system in systems:
                with self._attempt(model, system, "starts", places):
                    places[_column(system)].enter_context(system.opened(model))
            for number in range(self.rounds):
                for feed in self.feeds:
                    for system in systems:
                        yield from self._window(model, system, feed, number, places)

    def _apart(self, model: Model, systems: Sequence[System]) -> Iterator[Turn]:
        """Each system is opened for its turn alone."""
        for number in range(self.rounds):
            for system in systems:
                with ExitStack() as stack:
                    places = {_column(system): stack}
                    with self._attempt(model, system, "starts", places):
                        stack.enter_context(system.opened(model))
                    for feed in self.feeds:
                        yield from self._window(model, system, feed, number, places)

    def _window(
        self, model: Model, system: System, feed: Feed, number: int, places: dict[Column, ExitStack]
    ) -> Iterator[Turn]:
        if (model.name, _column(system)) in self.failures:
            return
        window = None
        with self._attempt(model, system, f"{feed}, round {number + 1} of {self.rounds}", places):
            window = system.measure(feed)
        if window is not None:
            yield system, feed, window

    @contextmanager
    def _attempt(self, model: Model, system: System, what: str, places: dict[Column, ExitStack]) -> Iterator[None]:
        """Tells what is done; a failure is noted, and ends the system."""
        column = _column(system)
        self.tell(f"{model.name}: {system.name} ({system.transport}), {what}")
        try:
            yield
        except SystemFailed as failure:
            self.failures[model.name, column] = str(failure)
            places[column].close()


def _column(system: System) -> Column:
    return system.name, system.transport

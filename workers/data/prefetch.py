"""Batches made before they are asked for, while the step runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Condition, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

MAX_PREPARED = 8
"""Batches that wait to be asked for; more expectations are made when one of them is taken."""

T = TypeVar("T")

Key = tuple[int, int]
"""(step, shard)"""


class Prefetcher(Generic[T]):
    """Makes expected batches in one background thread.

    Its own lock guards all its state; `make` runs outside it and may run in the thread and in `get` at once.

    Args:
        make: (step, shard) -> the batch, in the form that `get` shall return; safe to call from several threads.
        max_prepared: the bound on batches that wait.
    """

    def __init__(self, make: Callable[[int, int], T], *, max_prepared: int = MAX_PREPARED) -> None:
        self._make = make
        self._max_prepared = max_prepared
        self._changed = Condition()
        self._expected: dict[Key, None] = {}  # in the order of their making
        self._prepared: dict[Key, T | BaseException] = {}  # never one that is not expected
        self._in_making: Key | None = None
        self._is_closed = False
        self._thread = Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def expect(self, keys: Iterable[Key]) -> None:
        """What will probably be asked for next, in this order. Replaces what was expected, and drops its batches."""
        with self._changed:
            self._expected = dict.fromkeys(keys)
            self._prepared = {key: made for key, made in self._prepared.items() if key in self._expected}
            self._changed.notify_all()

    def get(self, step: int, shard: int) -> T:
        """The batch: the prepared one, the one being made, or else made now by the caller.

        Raises:
            RuntimeError: closed.
            Exception: whatever `make` raises, also if it raised it in the background.
        """
        key = (step, shard)
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._in_making != key)
            if self._is_closed:
                raise RuntimeError("the prefetcher is closed")
            made = self._prepared.pop(key, None)
            self._expected.pop(key, None)
            self._changed.notify_all()
        if isinstance(made, BaseException):
            raise made
        return self._make(step, shard) if made is None else made

    def close(self) -> None:
        """Ends the thread, after the batch that it is making, and drops what is prepared."""
        with self._changed:
            self._is_closed = True
            self._expected.clear()
            self._prepared.clear()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while (key := self._next()) is not None:
            made = self._attempt(key)
            with self._changed:
                self._in_making = None
                if key in self._expected:
                    self._prepared[key] = made
                self._changed.notify_all()
            del made  # while the thread waits, only `_prepared` holds batches

    def _next(self) -> Key | None:
        """Waits for something to make; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._first_to_make() is not None)
            self._in_making = None if self._is_closed else self._first_to_make()
            return self._in_making

    def _first_to_make(self) -> Key | None:
        if len(self._prepared) >= self._max_prepared:
            return None
        return next((key for key in self._expected if key not in self._prepared), None)

    def _attempt(self, key: Key) -> T | BaseException:
        try:
            return self._make(*key)
        except BaseException as error:  # the thread must live on, and `get` must see it
            return error

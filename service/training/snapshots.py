"""Memory for snapshots, touched beforehand: the first touch of a page costs many times what copying to it does."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Condition, Thread

import numpy as np

from gradwire.errors import JobFailed
from service.training.priority import take_what_is_left
from workers.exchange.room import Room
from workers.layout import Layout
from workers.pages import pages

MAX_BUFFERS = 2
"""One that is being written and one that waits."""
EVALUATED = 1
"""One more where evaluations read them."""

Tensors = Mapping[str, np.ndarray]


class Snapshots:
    """Buffers of one layout. The loop takes them; whoever has written a snapshot gives its buffer back.

    Each is made once, in a thread: the first at once, while the trainer waits for its workers; another, with the
    lowest priority, when one was wanted and none was free. A job whose checkpoints are written before the next one is
    due never comes to that.

    Where there is no room for another, whoever waits gets one that is given back.

    Args:
        most: so many buffers at most.
    """

    def __init__(self, layout: Layout, most: int = MAX_BUFFERS) -> None:
        self._layout = layout
        self._most = most
        self._changed = Condition()
        self._free: list[Tensors] = []
        self._made = 0
        self._is_making = False
        self._fault = ""
        with self._changed:
            self._ask_for_one()

    def take(self, *, waits: bool = False) -> Tensors | None:
        """Arrays by name to copy a snapshot to; None where no buffer is free, but for `waits`.

        Raises:
            JobFailed: there is no memory for any buffer (code `memory_full`).
        """
        with self._changed:
            if not self._free:
                self._ask_for_one()
            if waits:
                self._changed.wait_for(lambda: self._free or self._is_hopeless)
            if self._is_hopeless:
                message = f"no memory for a snapshot of {self._layout.total_bytes} bytes ({self._fault})"
                raise JobFailed(f"{message}; give the trainer's node more", code="memory_full")
            return self._free.pop() if self._free else None

    def give_back(self, tensors: Tensors) -> None:
        """The snapshot is written or given up."""
        with self._changed:
            self._free.append(tensors)
            self._changed.notify_all()

    @property
    def _is_hopeless(self) -> bool:
        return bool(self._fault) and not self._made

    def _ask_for_one(self) -> None:
        if self._made == self._most or self._is_making or self._fault:
            return
        self._is_making = True
        Thread(target=self._make, name="snapshot-memory", daemon=True).start()

    def _make(self) -> None:
        if self._made:
            take_what_is_left()
        made, fault = None, ""
        try:
            if self._made and (why := Room.now().refusal(self._layout.total_bytes)):
                raise OSError(why)
            made = _touched(self._layout)
        except (OSError, MemoryError) as error:
            fault = str(error) or type(error).__name__
        with self._changed:
            self._is_making, self._fault = False, fault
            if made is not None:
                self._made += 1
                self._free.append(made)
            self._changed.notify_all()


def _touched(layout: Layout) -> Tensors:
    """Arrays over new memory of which every page is there."""
    buffer = pages(layout.total_bytes)
    np.frombuffer(buffer, np.uint8)[...] = 0
    names = (tensor.name for tensor in layout.tensors)
    return dict(zip(names, layout.views(buffer), strict=True))

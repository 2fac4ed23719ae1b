"""Copies of large tables that are made while steps go on.

The loop says which rows it is about to write, and what they hold until then is kept; a thread copies the tables from
one end to the other, and then puts the kept rows in their places. It may copy a row before or after it is written, or
half of it: a row that is written meanwhile is among those that are kept, whatever the order, and any other is as it
was. So a step costs a copy of its own rows, not of the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import Event, Lock, Thread

import numpy as np

from service.training.changes import Rows
from service.training.weights import Copy
from workers.pages import HUGE_BYTES, pages

LARGE_BYTES = 16 << 20
"""A smaller table is copied at once."""
PIECE_BYTES = 32 << 20
"""Between two pieces the thread wants the interpreter's lock, which the loop needs as well."""
MAX_SHARE = 1 / 8
"""Whoever writes more rows of a table at once waits until it is copied, and helps: to keep them would take longer."""

Arrays = Sequence[np.ndarray]


class _KeptMemory:
    """Memory for rows of one width, used again for the next copy: to take it anew takes longer than to copy to it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._chunks: list[np.ndarray] = []
        self._chunk = self._used = 0

    def clear(self) -> None:
        """All of it is free again."""
        self._chunk = self._used = 0

    def take(self, count: int) -> np.ndarray:
        """Room for so many rows."""
        while self._chunk < len(self._chunks) and self._used + count > len(self._chunks[self._chunk]):
            self._chunk, self._used = self._chunk + 1, 0
        if self._chunk == len(self._chunks):
            rows = max(HUGE_BYTES // (self._width * 4), count)
            chunk = np.frombuffer(pages(rows * self._width * 4), np.float32)
            self._chunks.append(chunk.reshape(rows, self._width))
        found = self._chunks[self._chunk][self._used : self._used + count]
        self._used += count
        return found


class _TableCopy:
    """One copy of one table's arrays, all of shape (rows, width); old rows go to `memory`."""

    def __init__(self, arrays: Arrays, targets: Arrays, memory: _KeptMemory) -> None:
        self._memory = memory
        self._pairs = list(zip(targets, arrays, strict=True))
        rows, width = arrays[0].shape
        self._piece = max(PIECE_BYTES // (width * 4), 1)
        # A range's iterator is advanced under the interpreter's lock, so that no piece is dealt out twice.
        self._starts: Iterator[int] = iter(range(0, rows, self._piece))
        self._left = len(range(0, rows, self._piece))
        self._lock = Lock()
        self._kept: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._is_kept = np.zeros(rows, bool)
        self._are_rows_there = Event()
        self.is_done = Event()

    def keep(self, ids: np.ndarray) -> None:
        """What these rows hold now, unless an earlier state is kept."""
        new = ids[~self._is_kept[ids]]
        if new.size and not self.is_done.is_set():
            self._is_kept[new] = True
            self._kept.append((new, [self._taken(array, new) for _, array in self._pairs]))

    def _taken(self, array: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = self._memory.take(ids.size)
        np.take(array, ids, axis=0, out=rows, mode="clip")  # mode "raise" would fill a copy of `out` first
        return rows

    def copy(self) -> None:
        """Copies pieces until none is left that nobody copies."""
        while self.copy_piece():
            pass

    def copy_piece(self) -> bool:
        """Copies the next piece; False if there is none."""
        start = next(self._starts, None)
        if start is None:
            return False
        for target, array in self._pairs:
            np.copyto(target[start : start + self._piece], array[start : start + self._piece])
        with self._lock:
            self._left -= 1
            if not self._left:
                self._are_rows_there.set()
        return True

    def run(self) -> None:
        """Copies everything, and then puts what was kept in its place."""
        self.copy()
        self._are_rows_there.wait()
        # What is kept from now on was copied before it was written.
        for ids, rows in list(self._kept):
            for (target, _), values in zip(self._pairs, rows, strict=True):
                target[ids] = values
        self.is_done.set()


class TableWatch:
    """One table's weights and slots, of shape (rows, width). Belongs to the trainer's loop."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = list(arrays)
        self._targets: dict[int, np.ndarray] = {}
        self._memory = _KeptMemory(self._arrays[0].shape[1])
        self._under_way: _TableCopy | None = None

    def takes(self, target: np.ndarray, source: np.ndarray) -> bool:
        """Whether a copy from one of its arrays is left to it."""
        for number, array in enumerate(self._arrays):
            if array.nbytes >= LARGE_BYTES and array.ctypes.data == source.ctypes.data:
                self._targets[number] = target.reshape(array.shape)
                return True
        return False

    def begin(self) -> _TableCopy | None:
        """Begins with what it took; the result has to be run."""
        if not self._targets:
            return None
        targets, self._targets = self._targets, {}
        self._memory.clear()
        arrays = [self._arrays[number] for number in targets]
        self._under_way = _TableCopy(arrays, list(targets.values()), self._memory)
        return self._under_way

    def before_writing(self, ids: Rows) -> None:
        """To be called before these rows, or all, are written."""
        copy = self._under_way
        if copy is None:
            return
        if copy.is_done.is_set():
            self._under_way = None
        elif ids is None or ids.size > MAX_SHARE * len(self._arrays[0]):
            copy.copy()
            copy.is_done.wait()
        else:
            copy.keep(ids)


class LateCopies:
    """Copies a job's tables in a thread, for one snapshot at a time. Belongs to the trainer's loop.

    Args:
        watches: of the tables whose update says what it writes.
        at_once: copies everything else.
    """

    def __init__(self, watches: Sequence[TableWatch], at_once: Copy) -> None:
        self._watches = watches
        self._at_once = at_once
        self._copying: _Copying | None = None

    def copy(self, target: np.ndarray, source: np.ndarray) -> None:
        """Copies an array, or notes that it is to be copied."""
        if not any(watch.takes(target, source) for watch in self._watches):
            self._at_once(target, source)

    def start(self, tensors: Mapping[str, np.ndarray]) -> LateTensors:
        """Copies what was noted, and gives these tensors, which are copied to, to whoever waits for that."""
        copies = [copy for watch in self._watches if (copy := watch.begin()) is not None]
        self._copying = _Copying(copies) if copies else None
        if self._copying is not None:
            self._copying.start()
        return LateTensors(tensors, self._copying)

    @property
    def is_under_way(self) -> bool:
        """Whether the last snapshot is not complete."""
        return self._copying is not None and self._copying.is_alive()

    def wait(self) -> None:
        """Returns when the last snapshot is complete, or given up."""
        if self._copying is not None:
            self._copying.join()


class _Copying(Thread):
    error: Exception | None = None

    def __init__(self, copies: Sequence[_TableCopy]) -> None:
        super().__init__(name="snapshot-copy", daemon=True)
        self._copies = copies

    def run(self) -> None:
        try:
            for copy in self._copies:
                copy.run()
        except Exception as error:  # whoever wants the snapshot gets it
            self.error = error
        finally:
            for copy in self._copies:
                copy.is_done.set()  # the loop may wait for it


class LateTensors(Mapping[str, np.ndarray]):
    """A snapshot's tensors by name. Whoever reads one waits until all are there, or gets the error of copying; may be
    read by any thread."""

    def __init__(self, tensors: Mapping[str, np.ndarray], copying: _Copying | None) -> None:
        self._tensors = tensors
        self._copying = copying

    def wait(self) -> None:
        """Returns when all are there, or given up."""
        if self._copying is not None:
            self._copying.join()

    def __getitem__(self, name: str) -> np.ndarray:
        self.wait()
        if self._copying is not None and self._copying.error is not None:
            raise self._copying.error
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

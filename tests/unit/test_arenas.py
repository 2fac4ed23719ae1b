"""How many heaps a process's threads share."""

from __future__ import annotations

import subprocess
import sys

import pytest

THREADS = """
import ctypes, sys, tempfile, threading
from service import arenas
if sys.argv[1] == "few":
    arenas.use_few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(12)
def use():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=use) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, ctypes.c_void_p(stream))
    libc.fclose(ctypes.c_void_p(stream))
    print(open(file.name).read().count("<heap nr="))
"""


def heaps(how: str) -> int:
    found = subprocess.run([sys.executable, "-c", THREADS, how], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another")
def test_threads_share_few_heaps() -> None:
    assert heaps("few") <= 2 < heaps("usual")

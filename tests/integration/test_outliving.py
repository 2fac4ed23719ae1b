"""A process that outlives its coordinator does not outlive its use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
PROGRAM = """
import sys, threading, time
from service.cluster import outliving

outliving.LEASE_S, outliving.WATCH_S = 0.3, 0.02
process = outliving.OutlivingProcess()
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    process.renew()
    time.sleep(0.05)
print("renewed", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("renewed_s", [0.0, 1.0])
def test_an_idle_process_ends_itself_when_nobody_renews_its_lease(renewed_s: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(renewed_s)],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
    )  # fmt: skip
    assert done.stdout == "renewed\n", "it ended while its lease was renewed"

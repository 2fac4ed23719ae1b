"""The status page in a real browser, headless: what it draws, and that no name becomes a part of the page."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gradwire.progress import ErrorView, Event, EventKind, Snapshot, WorkerView
from gradwire.spec.job import ResourceSpec
from service.address import Address
from service.jobs.event import from_trainer
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.metrics_server import MetricsServer
from service.page.app import StatusPage
from service.store.memory import MemoryStore
from tests.conftest import Require

HOSTILE = '<img src=x onerror="document.title=1">&"\''
TRAINING, FAILED = "ab12ab12ab12", "cd34cd34cd34"


def worker(number: int, state: str) -> WorkerView:
    return WorkerView(
        id=f"{TRAINING}-g2-w{number}", pid=4000 + number, node="node-a", state=state, phase="compute",
        transport="shared_memory",
    )  # type: ignore[arg-type]  # fmt: skip


def event(cursor: int, kind: EventKind, step: int, message: str, loss: float) -> Event:
    metrics = {"loss": loss, "accuracy": 1 - loss / 3}
    return Event(cursor=cursor, time_s=1.7e9 + cursor, kind=kind, message=message, step=step, metrics=metrics)


def a_training_job() -> tuple[JobRecord, list[Event]]:
    snapshot = Snapshot(
        is_running=True, step=600, total_steps=1000, epoch=5, metrics={"loss": 0.31, "accuracy": 0.9},
        eval_metrics={"loss": 0.42, "accuracy": 0.87}, examples_per_second=51234.0, checkpoint_step=500,
        phase_ms={"data": 0.02, "compute": 0.61, "exchange": 0.2, "sum": 0.04, "apply": 0.09},
        workers=(worker(1, "READY"), worker(2, "SLOW"), worker(0, "DEAD")),
    )  # fmt: skip
    record = JobRecord(
        id=TRAINING, name=HOSTILE, request_id="1", spec_digest="d", resources=ResourceSpec(workers=2),
        created_at_s=time.time() - 90, state=JobState.RUNNING, state_reason=HOSTILE, generation=2, snapshot=snapshot,
    )  # fmt: skip
    events = [event(n, "progress", 10 * n, "", 2.3 / (1 + n / 8)) for n in range(1, 60)]
    events += [event(60, "evaluation", 300, "evaluated after step 300", 0.6), event(61, "warning", 310, HOSTILE, 0.5)]
    # The trainer died after step 590; the next went on from step 500.
    events += [event(n, "progress", 10 * (n - 11), "", 2.3 / (1 + n / 8)) for n in range(62, 72)]
    events += [event(72, "evaluation", 600, "evaluated after step 600", 0.42)]
    return record, events


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    store = MemoryStore()
    record, events = a_training_job()
    told = [from_trainer(one, record.state) for one in events]
    stored, _ = store.submit(record, "{}", told[0], max_live=9)
    store.update(stored, told[1:])
    failed = replace(
        record, id=FAILED, request_id="2", name="recommender", state=JobState.FAILED, finished_at_s=time.time(),
        error=ErrorView(code="nonfinite", message="the loss is not finite in step 7", details="loss"),
    )  # fmt: skip
    store.submit(failed, "{}", told[0], max_live=9)
    server = MetricsServer(Address("127.0.0.1", 0), CollectorRegistry(), StatusPage(store), None)
    yield f"http://{server.address}/"
    server.stop()


def browse(url: str, folder: Path, *arguments: str) -> str:
    """Opens a page for some seconds of its own time; returns the document as it is then."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1200,1500", *arguments, url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == [], "the page's script failed, or the browser refused something"
    return done.stdout


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_page_draws_jobs_and_a_jobs_life(url: str, tmp_path: Path, require: Require) -> None:
    require("chromium", "Debian's package chromium has it")
    jobs = browse(url, tmp_path, "--dump-dom")
    shown = words(jobs)
    assert "recommender" in shown and FAILED in shown and "600 / 1000" in shown and "1 running" in shown
    assert "<img" not in jobs and "onerror" in shown, "the name is text"

    one = browse(f"{url}#job={TRAINING}", tmp_path, "--dump-dom")
    shown = words(one)
    assert "600 of 1000" in shown and "step 500" in shown and "evaluated after step 600" in shown
    assert [state for state in ("READY", "SLOW", "DEAD") if state not in shown] == []
    assert "<img" not in one and "node-a" in shown and "0.610 ms · 64 %" in shown and "g2-w1" in shown
    assert "Left 40 s" in shown and "<option>accuracy</option>" in one
    curve = re.search(r'<path class="train" d="([^"]*)"', one)
    assert curve is not None
    steps = [float(x) for x in re.findall(r"[ML]([\d.]+) ", curve.group(1))]
    assert steps == sorted(set(steps)) and len(steps) == 60, (
        "after a recovery the curve goes on from where the job does"
    )

    failed = words(browse(f"{url}#job={FAILED}", tmp_path, "--dump-dom"))
    assert "nonfinite: the loss is not finite in step 7" in failed

    picture = tmp_path / "page.png"
    browse(f"{url}#job={TRAINING}", tmp_path, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000
    browse(url, tmp_path, f"--screenshot={tmp_path / 'list.png'}", "--window-size=500,900")

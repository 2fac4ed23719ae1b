"""The crew: who may join, who is dropped, and what the coordinator is told."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from gradwire.errors import JobFailed
from service.training.crew import MAX_CRASHES, SLOW_EVERY_S, Crew
from service.training.exchange import Left, Said
from service.training.pace import Straggler
from workers.exchange.messages import Dismiss, Failed, Heartbeat, Hello, Ready, Welcome, Word
from workers.exchange.segment import Segment
from workers.layout import Layout, Tensor

LAYOUT = Layout.of([Tensor("gradient/w", (3,), "float32")])
WELCOME = Welcome(segment="weights", layout_digest="d")


class Server:
    """A server without sockets: it remembers what was sent and who was dropped."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Word]] = []
        self.dropped: dict[str, str] = {}

    def send(self, worker_id: str, word: Word) -> None:
        self.sent.append((worker_id, word))

    def drop(self, worker_id: str, reason: str) -> None:
        self.dropped[worker_id] = reason

    def transport(self, worker_id: str) -> str:
        return "shared_memory"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def crew(server: Server) -> Crew:
    return Crew(server, lambda message, is_warning: None)  # type: ignore[arg-type]


def hello(worker_id: str) -> Said:
    word = Hello(token="t", job_id="j", generation=1, worker_id=worker_id, pid=7, node="n")
    return Said(worker_id, word)


def ready(worker_id: str, layout: Layout = LAYOUT, **fingerprint: str) -> Said:
    document: dict[str, Any] = {
        "contribution": layout.to_json(),
        "exchangedHeads": 0,
        "fingerprint": {"threads": "1", "instructions": "avx2", **fingerprint},
        "traceSeconds": 0.5,
    }
    published = Segment.create("document", len(text := json.dumps(document).encode()))
    published.buffer[:] = text
    segments = {"slots": Segment.create("slots", 4 * layout.total_bytes), "document": published}
    return Said(worker_id, Ready(segment="slots", document="document"), segments)


def test_early_workers_are_welcomed_when_the_weights_are_there(crew: Crew, server: Server) -> None:
    crew.hear(hello("w1"))
    assert server.sent == []
    crew.open(WELCOME)
    crew.hear(hello("w2"))
    assert server.sent == [("w1", WELCOME), ("w2", WELCOME)]
    assert crew.ready == []
    crew.hear(ready("w2"))
    assert crew.ready == ["w2"]
    assert {view.id: view.state for view in crew.views} == {"w1": "STARTING", "w2": "READY"}


@pytest.mark.parametrize(("name", "value"), [("threads", "2"), ("instructions", "avx512f")])
def test_a_worker_whose_bits_would_differ_is_not_let_in(crew: Crew, server: Server, name: str, value: str) -> None:
    crew.hear(hello("w1"))
    crew.hear(hello("w2"))
    crew.hear(ready("w1"))
    crew.hear(ready("w2", **{name: value}))
    assert f"its {name} is {value}, the job's" in server.dropped["w2"]
    assert crew.ready == ["w1"]


def test_a_worker_with_another_model_is_not_let_in(crew: Crew, server: Server) -> None:
    crew.hear(hello("w1"))
    crew.hear(hello("w2"))
    crew.hear(ready("w1"))
    other = Layout.of([Tensor("gradient/w", (4,), "float32")])
    crew.hear(ready("w2", other))
    assert "other variables" in server.dropped["w2"]


def test_a_fault_of_the_model_fails_the_job_at_once_and_a_crash_only_the_third_time(crew: Crew, server: Server) -> None:
    with pytest.raises(JobFailed, match="worker w1, step 4, shard 2") as caught:
        crew.hear(Said("w1", Failed(code="nonfinite", message="the loss is not finite", step=4, shard=2)))
    assert caught.value.code == "nonfinite"
    crash = Failed(code="internal", message="RuntimeError: out of luck", details="Traceback")
    for number in range(1, MAX_CRASHES):
        crew.hear(Said(f"w{number}", crash))
        assert f"w{number}" in server.dropped
    with pytest.raises(JobFailed, match="out of luck"):
        crew.hear(Said("w9", crash))


class Clock:
    """Time passes while somebody listens, a quarter of a second at a time."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.now_s = time.monotonic()
        crew.drop_silent(self.now_s)

    def listen(self, seconds: float, *alive: str) -> None:
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            for worker_id in alive:
                self.crew.hear(Said(worker_id, Heartbeat(phase="compute")))
            self.crew.drop_silent(self.now_s)


def test_a_hung_worker_is_dropped_with_its_phase_and_process(crew: Crew, server: Server) -> None:
    for name in ("w1", "w2"):
        crew.hear(hello(name))
        crew.hear(ready(name))
        crew.hear(Said(name, Heartbeat(phase="compute")))
    clock = Clock(crew)
    clock.listen(2.75, "w2")
    assert server.dropped == {}
    clock.listen(0.5, "w2")
    assert list(server.dropped) == ["w1"]
    assert re.fullmatch(r"hung in phase compute: no heartbeat for 3\.\d s \(process 7 on n\)", server.dropped["w1"])


def test_before_it_is_ready_a_worker_has_more_time(crew: Crew, server: Server) -> None:
    crew.hear(hello("w1"))
    clock = Clock(crew)
    clock.listen(4.75)
    assert server.dropped == {}
    clock.listen(0.5)
    assert "hung in phase trace" in server.dropped["w1"]


def test_what_was_not_listened_to_is_no_silence(crew: Crew, server: Server) -> None:
    """The trainer evaluates for a minute, or is stopped and continued."""
    crew.hear(hello("w1"))
    crew.hear(ready("w1"))
    clock = Clock(crew)
    clock.listen(2.0)
    clock.now_s += 60.0
    clock.listen(0.25)
    assert server.dropped == {}
    clock.listen(1.0)
    assert "w1" in server.dropped


def test_a_slow_worker_is_shown_and_reported_and_stays(server: Server) -> None:
    told: list[str] = []
    crew = Crew(server, lambda message, is_warning: told.append(message) if is_warning else None)  # type: ignore[arg-type]
    for name in ("w1", "w2"):
        crew.hear(hello(name))
        crew.hear(ready(name))
    crew.hear(Said("w1", Heartbeat(phase="data")))
    slow = [Straggler(worker_id="w1", shard_s=4.0, others_s=0.25)]
    for now_s in (100.0, 100.25, 100.0 + SLOW_EVERY_S - 1):
        crew.watch(slow, now_s)
    reading = "worker w1 is slow, in phase data: 4.0 s for a shard that takes the others 0.25 s (process 7 on n)"
    assert told == [reading]
    assert {view.id: view.state for view in crew.views} == {"w1": "SLOW", "w2": "READY"}
    crew.watch([], 150.0)
    assert {view.id: view.state for view in crew.views} == {"w1": "READY", "w2": "READY"}
    crew.watch(slow, 151.0)
    assert told == [reading] * 2
    assert server.dropped == {}


def test_who_left_is_shown_as_dead_and_is_not_dismissed(crew: Crew, server: Server) -> None:
    crew.hear(hello("w1"))
    crew.hear(hello("w2"))
    crew.lose(Left("w1", "hung up"))
    assert {view.id: view.state for view in crew.views} == {"w1": "DEAD", "w2": "STARTING"}
    crew.dismiss("done")
    assert server.sent == [("w2", Dismiss(reason="done"))]


def test_who_is_let_go_gets_no_orders_and_leaves_without_a_warning(server: Server) -> None:
    reports: list[tuple[str, bool]] = []
    crew = Crew(server, lambda message, is_warning: reports.append((message, is_warning)))  # type: ignore[arg-type]
    crew.open(WELCOME)
    for name in ("w1", "w2"):
        crew.hear(hello(name))
        crew.hear(ready(name))
    crew.let_go("w2")
    assert crew.ready == ["w1"] and crew.is_leaving("w2")
    crew.farewell("w2")
    crew.lose(Left("w2", "hung up"))
    assert reports[-1] == ("worker w2 was let go", False)
    assert [view.id for view in crew.views] == ["w1"]
    crew.let_go("w3")
    crew.hear(hello("w3"))
    assert isinstance(server.sent[-1][1], Dismiss), "one that comes too late is sent away"
    crew.hear(ready("w3"))
    assert crew.ready == ["w1"]


def test_who_was_ready_first_gets_orders_and_the_others_are_spares(server: Server) -> None:
    crew = Crew(server, lambda message, is_warning: None, limit=2)  # type: ignore[arg-type]
    crew.open(WELCOME)
    for name in ("w1", "w2", "w3", "w4"):
        crew.hear(hello(name))
    for name in ("w3", "w1", "w2"):
        crew.hear(ready(name))

    def phases() -> dict[str, str]:
        return {view.id: view.phase for view in crew.views if view.state == "READY"}

    assert crew.ready == ["w1", "w3"] and phases() == {"w1": "idle", "w2": "spare", "w3": "idle"}
    crew.hear(Said("w2", Heartbeat(phase="idle")))
    assert phases()["w2"] == "spare"
    crew.lose(Left("w3", "hung up"))
    assert crew.ready == ["w1", "w2"] and phases() == {"w1": "idle", "w2": "idle"}
    crew.resize(1)
    assert crew.ready == ["w1"] and phases() == {"w1": "idle", "w2": "spare"}
    crew.hear(ready("w4"))
    crew.resize(3)
    assert crew.ready == ["w1", "w2", "w4"] and "spare" not in phases().values()

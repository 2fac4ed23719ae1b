"""Metrics and status page over HTTP: who gets what."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from gradwire.progress import Event, Snapshot
from gradwire.spec.job import ResourceSpec
from service.address import Address
from service.jobs.event import from_trainer
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.metrics_server import MetricsServer
from service.page.answers import EVENTS
from service.page.app import FILES, StatusPage
from service.store.memory import MemoryStore

SECRET = {"Authorization": "Bearer s3cret"}


@contextmanager
def serving(token: str | None, store: MemoryStore | None = None) -> Iterator[Address]:
    registry = CollectorRegistry()
    Counter("gradwire_tests", "Tests", registry=registry).inc()
    server = MetricsServer(Address("127.0.0.1", 0), registry, StatusPage(store or MemoryStore()), token)
    yield server.address
    server.stop()


def ask(address: Address, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def a_store(events: int) -> MemoryStore:
    store = MemoryStore()
    record = JobRecord(
        id="ab12ab12ab12", name="<b>digits", request_id="r", spec_digest="d", resources=ResourceSpec(), created_at_s=1.0
    )  # fmt: skip
    told = [
        from_trainer(Event(cursor=n, time_s=1.0, kind="warning", message=f"m{n}", metrics={"loss": 0.5}), record.state)
        for n in range(1, events + 1)
    ]
    stored, _ = store.submit(record, "{}", told[0], max_live=9)
    store.update(stored.observed(Snapshot(is_running=True, metrics={"loss": float("nan")})), told[1:])
    return store


def test_metrics_are_at_their_path() -> None:
    with serving(None) as address:
        assert "gradwire_tests_total 1.0" in ask(address, "/metrics")[1]
        assert ask(address, "/other")[0] == 404
        assert ask(address, "/api/jobs/../../etc")[0] == 404
        assert ask(address, "/", "POST")[0] == 405


def test_with_a_token_only_those_who_show_it_see_jobs() -> None:
    with serving("s3cret", a_store(2)) as address:
        assert "gradwire_tests_total" in ask(address, "/metrics", **SECRET)[1]
        assert json.loads(ask(address, "/api/jobs", **SECRET)[1])["counts"] == {"QUEUED": 1}
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
            for path in ("/metrics", "/api/jobs", "/api/jobs/ab", "/other"):
                status, text, _ = ask(address, path, **headers)
                assert status == 401 and "digits" not in text
        assert ask(address, "/")[0] == 200, "the page says nothing of jobs, and asks for the token"


def test_the_page_takes_nothing_from_elsewhere() -> None:
    with serving(None) as address:
        for path, (name, kind) in FILES.items():
            status, text, headers = ask(address, path)
            assert (status, headers["Content-Type"]) == (200, kind), name
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
            assert "innerHTML" not in text and "style=" not in text and "onclick" not in text


def test_a_job_and_its_events_page_by_page() -> None:
    with serving(None, a_store(EVENTS + 3)) as address:
        status, text, headers = ask(address, "/api/jobs/ab12?after=0")
        found = json.loads(text)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert found["job"]["name"] == "<b>digits" and found["job"]["metrics"] == {"loss": None}
        assert found["hasMore"] and len(found["events"]) == EVENTS
        last = json.loads(ask(address, f"/api/jobs/ab12?after={found['events'][-1]['cursor']}")[1])
        assert not last["hasMore"] and [event["message"] for event in last["events"]] == ["m501", "m502", "m503"]
        status, text, _ = ask(address, "/api/jobs/ffff")
        assert status == 404 and "no job has the id" in json.loads(text)["error"]
        assert json.loads(ask(address, "/api/jobs")[1])["jobs"][0]["state"] == JobState.QUEUED


@pytest.mark.parametrize(
    ("host", "status"), [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:9464", 200), ("evil.example:9464", 403)]
)
def test_a_strangers_page_does_not_get_at_jobs_by_a_name_that_leads_here(host: str, status: int) -> None:
    with serving(None) as address:
        assert ask(address, "/api/jobs", Host=host)[0] == status

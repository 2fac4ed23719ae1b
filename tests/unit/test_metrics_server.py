"""The metrics over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.address import Address
from service.metrics_server import MetricsServer


@contextmanager
def serving(token: str | None, host: str = "127.0.0.1") -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("gradwire_tests", "Tests", registry=registry).inc()
    server = MetricsServer(Address(host, 0), registry, token)
    yield f"http://{server.address}"
    server.stop()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return str(answer.read().decode())


def test_metrics_are_at_their_path() -> None:
    with serving(None) as url:
        assert "gradwire_tests_total 1.0" in get(f"{url}/metrics")
        with pytest.raises(urllib.error.HTTPError, match="404") as raised:
            get(f"{url}/other")
        raised.value.close()


def test_with_a_token_only_those_who_show_it_see_them() -> None:
    with serving("s3cret") as url:
        assert "gradwire_tests_total" in get(f"{url}/metrics", Authorization="Bearer s3cret")
        for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
            with pytest.raises(urllib.error.HTTPError, match="401") as raised:
                get(f"{url}/metrics", **headers)
            raised.value.close()

"""One service with one Ray for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gradwire.client import Client
from tests.integration.server import Server, serving


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What server:PATH is relative to."""
    return tmp_path_factory.mktemp("data_root")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("service"), data_root=str(data_root), allow_code=True) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as made:
        yield made

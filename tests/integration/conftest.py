"""One service with one Ray for the whole session."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradwire.client import Client
from service.training.blocks import Blocks
from tests.integration.server import Server, serving
from workers.denormals import flush_denormals


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


@pytest.fixture(scope="module")
def blocks() -> Iterator[Blocks]:
    """Two threads that update weights, in the processor's mode that trainers have, as this thread is meanwhile."""
    libm, before = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(32)
    libm.fegetenv(before)
    assert flush_denormals()
    made = Blocks(2)
    yield made
    made.close()
    # Hypothesis, which other files use, wants to draw denormal numbers.
    libm.fesetenv(before)

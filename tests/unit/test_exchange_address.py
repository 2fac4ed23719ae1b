"""Where a worker finds its trainer."""

from __future__ import annotations

import pytest

from gradwire.assignment import ExchangeAddress

BOTH = ExchangeAddress(node="n1", folder="/dev/shm/gradwire-s-j-1", flight="grpc://10.0.0.5:4711")
NEAR_ONLY = ExchangeAddress(node="", folder="/dev/shm/gradwire-s-j-1")


@pytest.mark.parametrize("address", [BOTH, NEAR_ONLY])
def test_an_address_survives_as_text(address: ExchangeAddress) -> None:
    assert ExchangeAddress.parse(str(address)) == address


def test_workers_of_the_node_share_memory_and_others_use_flight() -> None:
    assert BOTH.seen_from("n1", "auto") == BOTH.folder
    assert BOTH.seen_from("n2", "auto") == BOTH.flight
    assert BOTH.seen_from("n1", "flight") == BOTH.flight


def test_without_flight_everybody_is_near() -> None:
    assert NEAR_ONLY.seen_from("n2", "flight") == NEAR_ONLY.folder

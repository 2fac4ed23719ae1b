"""How long a process that Ray does not reach is waited for."""

from __future__ import annotations

from service.cluster.contact import LOST_S, Contact


def test_a_process_is_lost_when_nobody_reached_it_for_long_and_not_before() -> None:
    contact = Contact()
    assert not contact.is_missed and not contact.is_lost(100.0)
    contact = contact.missed(100.0)
    assert contact.is_missed and not contact.is_lost(100.0 + LOST_S - 0.1)
    contact = contact.missed(100.0 + LOST_S / 2)
    assert contact.is_lost(100.0 + LOST_S), "what counts is the first time"

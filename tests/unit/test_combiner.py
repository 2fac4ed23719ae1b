"""What a relay adds up before it sends, and what does not wait; test_rounds_any_order.py has any order of events."""

from __future__ import annotations

from workers.exchange.combiner import Add, Combiner, Place, Send
from workers.exchange.messages import Done, Key, Part
from workers.tree import Node


def key(lo: int, hi: int, slot: int = 0, step: int = 5, attempt: int = 1) -> Key:
    return Key(step, Node(lo, hi), attempt, step, slot)


def done(given: Key) -> Done:
    return Done(given, 0.0, 0.0, 0.0)


def ordered(shards: int, **nodes: tuple[int, int]) -> tuple[Combiner, dict[str, Key]]:
    made, keys = Combiner(), {name: key(*node) for name, node in nodes.items()}
    for name, given in keys.items():
        made.ordered(name, given, shards, may_wait=True)
    return made, keys


def test_siblings_are_sent_as_their_sum() -> None:
    relay, keys = ordered(4, a=(0, 2), b=(2, 4))
    assert relay.done("b", done(keys["b"])) == []
    assert relay.done("a", done(keys["a"])) == [
        Add(Place("a", 0), Place("b", 0)),
        Send(Node(0, 4), Place("a", 0), (Part("a", done(keys["a"])), Part("b", done(keys["b"])))),
    ]


def test_what_has_no_sibling_here_is_sent_at_once() -> None:
    relay, keys = ordered(8, a=(0, 2), b=(4, 6))
    for name in keys:
        assert relay.done(name, done(keys[name])) == [
            Send(keys[name].node, Place(name, 0), (Part(name, done(keys[name])),))
        ]


def test_a_last_batch_that_is_not_full_has_a_tree_too() -> None:
    relay, keys = ordered(3, a=(0, 2), b=(2, 3))
    assert relay.done("a", done(keys["a"])) == []
    [add, send] = relay.done("b", done(keys["b"]))
    assert add == Add(Place("a", 0), Place("b", 0))
    assert isinstance(send, Send) and send.node == Node(0, 3)


def test_nothing_waits_whose_worker_has_more_to_do() -> None:
    relay = Combiner()
    relay.ordered("a", key(0, 1), 4, may_wait=False)
    relay.ordered("b", key(1, 2), 4, may_wait=True)
    assert len(relay.done("a", done(key(0, 1)))) == 1
    assert len(relay.done("b", done(key(1, 2)))) == 1


def test_what_waits_in_vain_is_sent_at_once() -> None:
    """The sibling of [0, 2) can no longer be made here once a part of it went alone."""
    relay = Combiner()
    relay.ordered("a", key(0, 2), 4, may_wait=True)
    relay.ordered("b", key(2, 3), 4, may_wait=False)
    relay.ordered("c", key(3, 4), 4, may_wait=True)
    assert relay.done("a", done(key(0, 2))) == []
    assert [action.node for action in relay.done("b", done(key(2, 3))) if isinstance(action, Send)] == [
        Node(2, 3),
        Node(0, 2),
    ]


def test_what_is_said_again_is_not_sent_before_its_sum() -> None:
    relay, keys = ordered(4, a=(0, 2), b=(2, 4))
    assert relay.done("a", done(keys["a"])) == []
    assert relay.done("a", done(keys["a"])) == []
    assert len(relay.done("b", done(keys["b"]))) == 2


def test_what_a_worker_has_finished_is_sent_when_it_goes() -> None:
    relay, keys = ordered(4, a=(0, 2), b=(2, 4))
    relay.done("a", done(keys["a"]))
    assert relay.left("a") == [Send(Node(0, 2), Place("a", 0), (Part("a", done(keys["a"])),))]
    assert [action.node for action in relay.done("b", done(keys["b"])) if isinstance(action, Send)] == [Node(2, 4)]


def test_nobody_waits_for_a_worker_that_has_gone() -> None:
    relay, keys = ordered(4, a=(0, 2), b=(2, 4))
    relay.done("a", done(keys["a"]))
    assert relay.left("b") == [Send(Node(0, 2), Place("a", 0), (Part("a", done(keys["a"])),))]

"""Admission: nobody overtakes, nothing is given away twice, and every waiting job knows why."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire.spec.job import ResourceSpec
from service.admission import UNITS, Decision, Demand, Grant, decide, demand_of, growth
from service.engine import NodeResources
from service.jobs.record import JobRecord

TWO_CPUS = (NodeResources("n", 2.0, 0.0),)


def demand(job_id: str, workers: int = 1, min_workers: int = 1, cpus: float = 1.0, gpus: float = 0.0) -> Demand:
    resources = ResourceSpec(workers=workers, min_workers=min_workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
    record = JobRecord(
        id=job_id, name="n", request_id="r", spec_digest="d", resources=resources, created_at_s=1.0
    )  # fmt: skip
    return demand_of(record)


def grant(asked: Demand, **workers: int) -> Grant:
    return Grant(demand=asked, workers=workers)


def started(decision: Decision) -> tuple[str, dict[str, int]]:
    assert decision.grant is not None
    return decision.grant.demand.job_id, dict(decision.grant.workers)


def test_a_job_takes_as_many_workers_as_fit() -> None:
    assert started(decide([demand("a", workers=8)], [], TWO_CPUS)) == ("a", {"n": 2})


def test_fractions_are_exact() -> None:
    tenths = demand("a", workers=1, cpus=0.1)
    assert started(decide([demand("b", cpus=0.1)], [grant(tenths, n=19)], TWO_CPUS)) == ("b", {"n": 1})
    assert decide([demand("b", cpus=0.1)], [grant(tenths, n=20)], TWO_CPUS).grant is None
    assert decide([demand("b", cpus=1e-9)], [grant(tenths, n=20)], TWO_CPUS).grant is None


def test_a_waiting_job_says_what_for() -> None:
    running = grant(demand("a", cpus=1.5), n=1)
    reasons = decide(
        [demand("b", workers=2), demand("c", cpus=0.5), demand("d", workers=2)], [running], TWO_CPUS
    ).reasons
    assert reasons == {
        "b": "waits for 1 CPU: needs 2 × 1 CPU (at least 1 worker), 0.5 of 2 CPUs are free",
        "c": "waits its turn behind job b",
        "d": "waits for 1 CPU: needs 2 × 1 CPU (at least 1 worker), 0.5 of 2 CPUs are free; behind job c",
    }


def test_what_never_fits_holds_up_nobody() -> None:
    decision = decide([demand("a", cpus=4.0), demand("b")], [], TWO_CPUS)
    assert started(decision) == ("b", {"n": 1})
    reasons = decide([demand("a", workers=3, min_workers=3)], [], TWO_CPUS).reasons
    assert reasons["a"] == (
        "cannot run here: needs at least 3 workers of 1 CPU, the cluster has 2 CPUs on 1 node; "
        "ask for less, or add nodes"
    )
    assert decide([demand("a")], [], ()).reasons == {"a": "waits for a node: the cluster has none"}


def test_workers_stay_together_if_they_can() -> None:
    nodes = (NodeResources("small", 2.0, 0.0), NodeResources("large", 4.0, 0.0))
    assert started(decide([demand("a", workers=4)], [], nodes)) == ("a", {"large": 4})
    assert started(decide([demand("a", workers=5)], [], nodes)) == ("a", {"large": 4, "small": 1})


def test_cpus_scattered_over_nodes_are_said_to_be() -> None:
    nodes = (NodeResources("a", 1.0, 0.0), NodeResources("b", 1.0, 0.0))
    half = demand("x", cpus=0.5)
    reasons = decide([demand("y")], [grant(half, a=1), grant(half, b=1)], nodes).reasons
    assert reasons["y"].endswith("1 of 2 CPUs are free, scattered over nodes")


def test_gpus_count_too() -> None:
    nodes = (NodeResources("n", 8.0, 1.0),)
    asked = demand("a", workers=2, gpus=1.0)
    assert started(decide([asked], [], nodes)) == ("a", {"n": 1})
    reasons = decide([demand("b", gpus=0.5)], [grant(asked, n=1)], nodes).reasons
    assert reasons["b"] == (
        "waits for 1 CPU and 0.5 GPU: needs 1 × 1 CPU and 0.5 GPU (at least 1 worker), "
        "7 of 8 CPUs and 0 of 1 GPUs are free"
    )


def test_a_job_grows_into_what_others_leave() -> None:
    small = grant(demand("a", workers=4), n=1)
    assert growth(small, [small], TWO_CPUS) == {"n": 1}
    assert growth(small, [small, grant(demand("b"), n=1)], TWO_CPUS) == {}
    whole = grant(demand("a", workers=1), n=1)
    assert growth(whole, [whole], TWO_CPUS) == {}


def test_a_grant_forgets_nodes_without_workers() -> None:
    assert grant(demand("a", workers=2), n=1, m=1).changed("m", -1).workers == {"n": 1}
    assert grant(demand("a"), n=1).changed("n", -1).total == 0


CPUS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1.0, 1.5, 3.0])
NODES = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.sampled_from([0.0, 1.0])), max_size=3).map(
    lambda items: tuple(NodeResources(f"n{index}", cpus, gpus) for index, (cpus, gpus) in enumerate(items))
)


@st.composite
def queues(draw: st.DrawFn) -> list[Demand]:
    found = []
    for index in range(draw(st.integers(1, 6))):
        workers = draw(st.integers(1, 5))
        gpus = draw(st.sampled_from([0.0, 0.0, 0.5, 1.0]))
        found.append(demand(f"j{index}", workers, draw(st.integers(1, workers)), draw(CPUS), gpus))
    return found


def admitted(queue: list[Demand], nodes: tuple[NodeResources, ...]) -> tuple[list[Grant], Decision]:
    """Starts jobs until no more can."""
    grants: list[Grant] = []
    while (decision := decide(queue, grants, nodes)).grant is not None:
        grants.append(decision.grant)
        queue = [one for one in queue if one.job_id != decision.grant.demand.job_id]
    return grants, decision


@given(queues(), NODES)
def test_no_node_gives_more_than_it_has(queue: list[Demand], nodes: tuple[NodeResources, ...]) -> None:
    grants, decision = admitted(queue, nodes)
    cpus, gpus = Counter[str](), Counter[str]()
    for one in grants:
        assert one.demand.min_workers <= one.total <= one.demand.workers
        for node, workers in one.workers.items():
            cpus[node] += workers * one.demand.cpus
            gpus[node] += workers * one.demand.gpus
    assert all(cpus[node.node] <= node.cpus * UNITS and gpus[node.node] <= node.gpus * UNITS for node in nodes)
    assert {one.demand.job_id for one in grants} | set(decision.reasons) == {one.job_id for one in queue}


@given(queues(), NODES)
def test_nobody_overtakes_a_job_that_could_run(queue: list[Demand], nodes: tuple[NodeResources, ...]) -> None:
    grants, _ = admitted(queue, nodes)
    runnable = [one.job_id for one in queue if decide([one], [], nodes).grant is not None]
    assert [one.demand.job_id for one in grants] == runnable[: len(grants)]


@given(queues(), NODES)
def test_every_job_that_can_run_does_once_others_end(queue: list[Demand], nodes: tuple[NodeResources, ...]) -> None:
    runnable, seen = [one for one in queue if decide([one], [], nodes).grant is not None], []
    while runnable:
        grants, _ = admitted(runnable, nodes)
        assert grants, "the first job of the queue waits in an empty cluster"
        seen += [one.demand.job_id for one in grants]
        runnable = [one for one in runnable if one.job_id not in seen]
    assert seen == [one.job_id for one in queue if decide([one], [], nodes).grant is not None]


@given(queues(), NODES)
def test_growth_never_gives_more_than_there_is(queue: list[Demand], nodes: tuple[NodeResources, ...]) -> None:
    grants, _ = admitted(queue, nodes)
    for index, one in enumerate(grants):
        more = growth(one, grants, nodes)
        for node, count in more.items():
            grants[index] = grants[index].changed(node, count)
        assert grants[index].total <= one.demand.workers
    cpus = Counter[str]()
    for one in grants:
        for node, workers in one.workers.items():
            cpus[node] += workers * one.demand.cpus
    assert all(cpus[node.node] <= node.cpus * UNITS for node in nodes)


@pytest.mark.parametrize(("amount", "units"), [(0.1, 1000), (1 / 3, 3333), (1e-6, 1), (2.0, 20000)])
def test_units_are_those_of_ray(amount: float, units: int) -> None:
    assert demand("a", cpus=amount).cpus == units

"""What the trainer counts, and the norm of its gradients."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradwire.telemetry import BUCKETS_S, Durations, Telemetry
from service.training.blocks import Blocks
from service.training.crew import Crew
from service.training.exchange import Left, Said
from service.training.meter import Meter
from service.training.norm import EVERY_S, GradientNorm
from service.training.pace import Straggler
from service.training.summation import StepSum, Summation
from tests.unit.test_crew import Server, hello, ready
from workers.exchange.messages import Failed, Heartbeat, Welcome
from workers.layout import Layout, Tensor
from workers.tree import Node


def test_durations_fall_into_their_buckets() -> None:
    meter = Meter()
    meter.committed(1, 32, (0.0, 0.0001, 0.00011, 0.05, 61.0))
    meter.committed(2, 8, (0.0, 0.0, 0.0, 0.0, 0.0))
    meter.saved(0.2)
    read = meter.telemetry()
    assert (read.step, read.steps, read.examples) == (2, 2, 40)
    filled = {phase: [i for i, count in enumerate(found.counts) if count] for phase, found in read.phases.items()}
    assert filled == {
        "data": [0], "compute": [0], "exchange": [0, 1], "sum": [0, 6], "apply": [0, len(BUCKETS_S)], "checkpoint": [7]
    }  # fmt: skip
    assert read.step_s == pytest.approx(61.05021)


def test_several_starts_together() -> None:
    first = Telemetry(steps=3, phases={"sum": Durations(counts=(1,) * 12, sum_s=2.0)}, learning_rate=0.5, refused=1)
    second = Telemetry(step=9, steps=2, phases={"data": Durations(sum_s=1.0)}, gradient_norm=3.0, refused=1)
    both = second.after(first)
    assert (both.step, both.steps, both.refused, both.learning_rate, both.gradient_norm) == (9, 5, 2, 0.5, 3.0)
    assert both.phases["sum"].counts == (1,) * 12 and both.step_s == 3.0


def test_a_crews_life_is_counted() -> None:
    crew = Crew(Server(), lambda message, is_warning: None)  # type: ignore[arg-type]
    crew.open(Welcome(segment="weights", layout_digest="d"))
    for worker_id in ("w0", "w1", "w2"):
        crew.hear(hello(worker_id))
        crew.hear(traced(worker_id, 2))
    crew.hear(Said("w0", Heartbeat(phase="compute", traces=2)))
    assert (crew.meter.start_traces, crew.meter.step_traces) == (6, 0)
    crew.hear(Said("w0", Heartbeat(phase="compute", traces=5)))
    crew.hear(Said("w0", Heartbeat(phase="compute", traces=5)))
    assert crew.meter.step_traces == 3
    crew.lose(Left("w1", "hung up"))
    crew.let_go("w2")
    crew.lose(Left("w2", "was let go"))
    assert crew.meter.worker_deaths == 1
    for _ in range(2):
        crew.watch([Straggler(worker_id="w0", shard_s=9.0, others_s=1.0)], 5.0)
    assert crew.meter.stragglers == 1
    with pytest.raises(Exception, match="not finite"):
        crew.hear(Said("w0", Failed(code="nonfinite", message="not finite")))
    assert crew.meter.nonfinite == 1


def traced(worker_id: str, traces: int) -> Said:
    said = ready(worker_id)
    segment = said.segments[said.word.document]  # type: ignore[union-attr]
    document = json.loads(bytes(segment.buffer))
    text = json.dumps({**document, "traces": traces}).encode()
    made = type(segment).create("x", len(text))
    made.buffer[:] = text
    return Said(worker_id, said.word, {**said.segments, said.word.document: made})  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_norm_of_gradients(dtype: str) -> None:
    layout = Layout.of([Tensor("gradient/w", (300_000,), dtype), Tensor("state/m", (3,), "float32")])
    rng = np.random.default_rng(0)
    buffers = [bytearray(layout.total_bytes) for _ in range(2)]
    for buffer in buffers:
        for view in layout.views(buffer):
            view[...] = rng.normal(size=view.shape)
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 0.01  # a look takes so long
        return now_s

    blocks = Blocks(2)
    summation = Summation(layout, blocks)
    norm = GradientNorm(summation, blocks, clock)
    total = StepSum(Node(0, 2), {Node(n, n + 1): layout.flat(buffer) for n, buffer in enumerate(buffers)})
    summation.add_up(total)
    gradient = layout.views(buffers[0])[0].astype(float) + layout.views(buffers[1])[0]
    assert norm.look(total) == pytest.approx(math.sqrt(float(np.dot(gradient, gradient))), rel=1e-5)
    assert norm.look(total) is None
    now_s += EVERY_S + 1.0
    assert norm.look(total) is None, "a look that takes 10 ms comes every two seconds"
    now_s += 1.0
    assert norm.look(total) is not None
    blocks.close()

"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from protos.gradwire.v1 import service_pb2 as pb

LOSS = "loss"


def metric_text(name: str, value: float) -> str:
    """A metric's value: accuracies in percent, all else with four significant digits."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.2%}".replace("%", " %") if "accuracy" in name else f"{value:.4g}"


def rate_text(examples_per_second: float) -> str:
    """Such as 4,210 examples/s."""
    return f"{examples_per_second:,.0f} examples/s"


def duration_text(seconds: float) -> str:
    """Such as 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def age_text(seconds: float) -> str:
    """Such as 12 s ago, 3 min ago, 5 h ago, 2 d ago."""
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size_s:
            return f"{seconds // size_s:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def count_text(count: int, noun: str) -> str:
    """Such as 1 worker, 2 workers."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def milliseconds_text(milliseconds: float) -> str:
    """Such as 0.42 ms, 23.1 ms."""
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:,.1f} ms"


def reason_text(state: str, reason: str) -> str:
    """Why a job is in a state; nothing where the reason only repeats the state's word."""
    return "" if reason.upper() == state else reason


def head_order(job: pb.Job) -> list[str]:
    """The names of a job's model outputs: those that weigh most in the loss first, since maps travel without order."""
    losses = job.spec.loss
    return sorted(losses, key=lambda head: (-losses[head].weight, head))


def metric_order(names: Iterable[str], heads: list[str]) -> list[str]:
    """Names of metrics for reading: the loss, then head by head metrics before losses."""

    def place(name: str) -> tuple[bool, bool, int, str]:
        owners = [head for head in heads if head and name.startswith(f"{head}_")]
        head = heads.index(max(owners, key=len)) if owners else len(heads)
        return name != LOSS, name.endswith(f"_{LOSS}"), head, name

    return sorted(set(names), key=place)


def headline(metrics: Mapping[str, float], heads: list[str]) -> list[str]:
    """The two metrics to show where there is room for no more: the loss and the main head's first metric."""
    return metric_order(metrics, heads)[:2]


def metrics_text(metrics: Mapping[str, float], heads: list[str]) -> str:
    """The headline metrics in one line, such as `loss 0.031  digit_accuracy 99.10 %`."""
    return "  ".join(f"{name} {metric_text(name, metrics[name])}" for name in headline(metrics, heads))

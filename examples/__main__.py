"""Runs the examples on a server of their own and looks at what they reach: python -m examples [NAME ...]."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import gradwire
from protos.gradwire.v1 import service_pb2 as pb

FOLDER = Path(__file__).parent
FLOORS: Mapping[str, Mapping[str, float]] = {
    "digits": {"digit_accuracy": 0.97},
    "heads": {"digit_accuracy": 0.96, "bottom_only_accuracy": 0.7},
    "experts": {"accuracy": 0.95},
    "adversarial": {"digit_accuracy": 0.93, "probe_accuracy": 0.9, "ground_loss": 0.6},
    "numbers": {"whole_numbers": 0.9},
    "lines": {"accuracy": 0.95},
    "text": {},
    "movielens": {},
}
"""Least values of the last evaluation, by example and metric."""
CEILINGS = {"text": {"next_perplexity": 5.5}, "adversarial": {"ground_binary_accuracy": 0.75}}
BASELINE = 3.0
"""MovieLens: how many times better than the most popular films."""


def shortfalls(name: str, metrics: Mapping[str, float]) -> list[str]:
    """What an example did not reach."""
    found = [
        f"{metric} is {metrics[metric]:.3f}, less than {least}"
        for metric, least in FLOORS[name].items()
        if metrics[metric] < least
    ]
    found += [
        f"{metric} is {metrics[metric]:.3f}, more than {most}"
        for metric, most in CEILINGS.get(name, {}).items()
        if metrics[metric] > most
    ]
    if name == "movielens" and metrics["ndcg_10"] < BASELINE * metrics["popular_ndcg_10"]:
        found.append(f"ndcg_10 is {metrics['ndcg_10']:.3f}, with popular films {metrics['popular_ndcg_10']:.3f}")
    return found


def run(client: gradwire.Client, name: str) -> list[str]:
    """Trains an example to its end; prints its line."""
    started = time.monotonic()
    job = client.submit(FOLDER / name / "job.yaml")
    for _ in client.watch(job):
        pass
    job = client.get(job)
    if job.state != pb.JOB_STATE_SUCCEEDED:
        print(f"{name:12} failed: {job.error.message}\n{job.error.details}", flush=True)
        return [job.error.message]
    faults = shortfalls(name, job.eval_metrics)
    numbers = ", ".join(f"{metric} {value:.3f}" for metric, value in sorted(job.eval_metrics.items()))
    print(
        f"{name:12} {time.monotonic() - started:5.0f} s  {'; '.join(faults) or 'as expected'}  ({numbers})", flush=True
    )
    return faults


def main(names: list[str]) -> int:
    """The exit status: 0 if every example reached what it should."""
    if "movielens" in names and importlib.util.find_spec("recbole") is None:
        print("movielens    left out: its data come with recbole: pip install --no-deps recbole==1.2.1", flush=True)
        names = [name for name in names if name != "movielens"]
    with gradwire.local_server(workers=2, allow_code=True) as server, gradwire.Client(server) as client:
        faults = {name: run(client, name) for name in names}
    return 1 if any(faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FLOORS)))

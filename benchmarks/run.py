"""One run: builds the models, measures what the plan says, and leaves no process and no file behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.children import Child, python
from benchmarks.extras import NEEDED_MODELS, Extras
from benchmarks.gradwire_system import GradwireSystem
from benchmarks.models import Model
from benchmarks.peer import KINDS, PeerSystem
from benchmarks.plan import Plan
from benchmarks.results import Measured, Row, loss_rows, payload_row, rows_of
from benchmarks.rounds import Failures, Rounds, Tell
from benchmarks.service import serving
from benchmarks.system import System, SystemFailed
from benchmarks.tables import Tables

BUILD_TIMEOUT_S = 300.0
FOR_TABLES = ("keras_fit",)
"""Peers that are measured at models with tables alone."""


def measure(plan: Plan, tell: Tell) -> tuple[list[Row], Failures]:
    """All rows, and why some are missing. Raises `SystemFailed` if the models cannot be built."""
    rows: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="gw-bench-", dir="/tmp"))  # short: paths of sockets lie below it
    try:
        tell("builds the models")
        names = {model.name for model in plan.models}
        _build_models(folder, sorted(names | set(NEEDED_MODELS) if plan.with_extras else names))
        rounds = Rounds(plan.rounds, plan.feeds, tell)
        for model in plan.models:
            with ExitStack() as stack:
                measured = rounds.measure(model, _systems(plan, model, folder, stack))
            rows += _rows(plan, measured, None if model.has_tables else _bytes(folder, model))
        failures = rounds.failures
        if plan.with_extras:
            extras = Extras(folder=folder, tell=tell, starts=plan.starts, kills=plan.kills, failures=failures)
            tables = Tables(folder=folder, tell=tell, pace=plan.pace, failures=failures)
            for more in (extras.measure, tables.measure):
                rows += _noted(more, failures)
        return rows, failures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _noted(more: Callable[[], list[Row]], failures: Failures) -> list[Row]:
    """What comes after half an hour of measurements loses none of them, whatever happens to it."""
    try:
        return more()
    except Exception as error:
        failures[more.__qualname__, ("gradwire", "shared_memory")] = f"{type(error).__name__}: {error}"
        return []


def _bytes(folder: Path, model: Model) -> int:
    return int((folder / f"{model.name}.size").read_text())


def _rows(plan: Plan, measured: Iterable[Measured], model_bytes: int | None) -> list[Row]:
    """model_bytes: what is exchanged in a step; None where it depends on the batch."""
    found = list(measured)
    rows = [row for one in found for row in rows_of(one)]
    if model_bytes is not None:
        rows += [row for one in found if (row := payload_row(one, model_bytes)) is not None]
    for feed in plan.feeds:
        rows += loss_rows([one for one in found if one.input == feed])
    return rows


def _systems(plan: Plan, model: Model, folder: Path, stack: ExitStack) -> list[System]:
    """The columns of the table, in their order; Gradwire's share a service, which ends with the stack."""
    systems: list[System] = []
    if "gradwire" in plan.systems:
        service = stack.enter_context(serving(folder))
        modes = (False, True) if model.has_tables else (False,)
        systems += [
            GradwireSystem(service, transport, plan.pace, is_lazy=is_lazy)
            for transport in plan.transports
            for is_lazy in modes
        ]
    names = [name for name in plan.systems if name in KINDS and (model.has_tables or name not in FOR_TABLES)]
    systems += [PeerSystem(KINDS[name], folder, plan.pace) for name in names]
    return systems


def _build_models(folder: Path, names: list[str]) -> None:
    """Has a child write the models' configs, since TensorFlow takes seconds and memory."""
    child = Child(python("benchmarks.peers.architectures", str(folder), *names), {}, folder / "build.log")
    try:
        child.process.wait(BUILD_TIMEOUT_S)
        if child.process.returncode:
            raise SystemFailed(f"the models cannot be built: {child.last_words()}")
    finally:
        child.stop()

"""Evaluations beside training: steps go on, and every number is that of the evaluated step."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
from keras import layers

from gradwire.notebook.history import LINES, Recorder
from gradwire.packing import pack
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from protos.gradwire.v1 import service_pb2 as pb
from service.training.checkpoint import CheckpointFolder
from tests.integration.cases import convolutional, spec_of, write_npz
from tests.integration.lab import Result, lab, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

STEPS, EVERY = 12, 4

SOURCE = '''
import pathlib
import threading
import numpy as np

class Held:
    """Validation rows that come as often as a file says."""

    def __init__(self, path, gate):
        self.found = np.load(path)
        self.gate = pathlib.Path(gate)
        self.passes = 0

    def __len__(self):
        return len(self.found["label_digit"])

    def arrays(self, rows):
        self.passes += rows.size > 1 and rows[0] == 0
        while int(self.gate.read_text() or 0) < self.passes:
            threading.Event().wait(0.01)
        return {name: values[rows] for name, values in self.found.items()}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("evaluation")
    write_npz(convolutional(has_state=True), made / "rows.npz")
    source = made / "source"
    source.mkdir()
    (source / "held_rows.py").write_text(SOURCE)
    pack(source, made / "source.zip")
    content = (made / "source.zip").read_bytes()
    Storage(str(made / "storage")).write(f"artifacts/{hashlib.sha256(content).hexdigest()}", content)
    return made


def spec(folder: Path, gate: str, **training: Any) -> JobSpec:
    made = spec_of(
        convolutional(has_state=True), "server:rows.npz", training={"steps": STEPS, "evaluateEvery": EVERY, **training}
    )
    document = made.model_dump(mode="json", by_alias=True)
    artifact = hashlib.sha256((folder / "source.zip").read_bytes()).hexdigest()
    arguments = {"path": str(folder / "rows.npz"), "gate": str(folder / gate)}
    source = {"artifact": artifact, "label": "source"}
    python = {"function": "held_rows:Held", "source": source, "arguments": arguments}
    document["data"]["validation"] = {"source": {"python": python}}
    return JobSpec.model_validate(document)


def evaluations(result: Result) -> list[tuple[int, dict[str, float]]]:
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return [(event.step, dict(event.metrics)) for event in result.progress.events if event.kind == "evaluation"]


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("average", [None, {"momentum": 0.5}])
def test_steps_go_on_beside_an_evaluation_that_sees_the_weights_of_its_step(
    folder: Path, optimizer: str, average: Any
) -> None:
    """The first evaluation's rows come when the job is as far as it may get without its result."""
    gate = f"gate-{optimizer}-{bool(average)}"
    (folder / gate).write_text("0")
    options: dict[str, Any] = {"movingAverage": average, "checkpoint": {"everySteps": EVERY}}
    job_spec = spec(folder, gate, **options).model_copy(update={"optimizer": optimizer_of(optimizer)})
    with lab(job_spec, folder, workers=2) as job:
        job.wait_for(lambda progress: progress.telemetry.step == 2 * EVERY)
        assert not [event for event in job.progress().events if event.kind == "evaluation"]
        assert job.progress().snapshot.checkpoint_step == 0, "it waits for what the evaluation says"
        (folder / gate).write_text("99")
        beside = job.result()
    assert [step for step, _ in evaluations(beside)] == [4, 8, 12]
    shorter = job_spec.training.model_copy(update={"steps": EVERY})
    alone = run(job_spec.model_copy(update={"training": shorter}), folder, 1, is_remote=True)
    assert evaluations(alone)[0] == evaluations(beside)[0]
    assert len({tuple(metrics.items()) for _, metrics in evaluations(beside)}) == 3


def optimizer_of(name: str) -> Any:
    return spec_of(convolutional(has_state=True), "server:rows.npz", optimizer=name).optimizer


def test_a_trainer_killed_beside_an_evaluation_evaluates_that_step_again(folder: Path) -> None:
    for gate, passes in {"gate-open": "99", "gate-killed": "1"}.items():
        (folder / gate).write_text(passes)
    whole = run(spec(folder, "gate-open"), folder, 1)
    with lab(spec(folder, "gate-killed"), folder, workers=1, job_id="killedbeside") as job:
        stored = CheckpointFolder(Storage(str(folder / "storage")), "killedbeside")
        job.wait_for(lambda progress: progress.telemetry.step == STEPS and EVERY in stored.steps())
        assert job.trainer is not None
        job.trainer.process.kill()
        job.trainer.process.join(10)
    assert max(stored.steps()) < 2 * EVERY, "no checkpoint is ahead of the evaluation that was under way"
    (folder / "gate-killed").write_text("99")
    resumed = run(spec(folder, "gate-killed"), folder, 2, job_id="killedbeside", generation=2)
    assert evaluations(resumed) == evaluations(whole)[1:]
    assert resumed.digest == whole.digest
    best = whole.progress.snapshot.best
    assert best is not None and resumed.progress.snapshot.best == best
    assert best.value == min(metrics["loss"] for _, metrics in evaluations(whole))


@pytest.mark.parametrize("is_late", [False, True])
def test_a_notebook_shows_an_evaluation_that_comes_after_the_next_epoch_has_begun(
    is_late: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(epochs=2, steps_per_epoch=2, verbose=LINES)
    events = [
        pb.JobEvent(kind="progress", step=2, epoch=1, metrics={"loss": 3.0}),
        pb.JobEvent(kind="progress", step=4, epoch=2, metrics={"loss": 2.0}),
    ]
    events.insert(2 if is_late else 1, pb.JobEvent(kind="evaluation", step=2, epoch=1, metrics={"loss": 2.5}))
    for event in events:
        recorder.event(event)
    recorder.end()
    assert "val_loss: 2.5000" in capsys.readouterr().out
    assert recorder.history(SimpleNamespace()).history == {"loss": [3.0, 2.0], "val_loss": [2.5]}


def test_what_layers_draw_in_an_evaluation_depends_on_the_step_alone(folder: Path) -> None:
    """Seed generators of the trainer's model would go on from one evaluation to the next."""
    image = keras.Input((8, 8, 1), name="image")
    value = layers.Flatten(name="flat")(layers.Dropout(0.5, name="drop")(image, training=True))
    model = keras.Model(image, layers.Dense(10, name="digit")(value))
    keras_json = {"keras": model.to_json()}

    def metrics(every: int) -> dict[str, float]:
        """Of the evaluation after step 6."""
        training = {"steps": 6, "evaluateEvery": every}
        made = spec_of(
            convolutional(), "server:rows.npz", training=training, validation=0.25, model=keras_json, optimizer="sgd"
        )
        return dict(evaluations(run(made, folder, 1)))[6]

    assert metrics(1) == metrics(6)

"""`gradwire.fit`: training a Keras model on the service from a notebook or a script."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradwire.client import Client
from gradwire.errors import InvalidSpec, JobFailed, Violation
from gradwire.notebook.arrays import Table
from gradwire.notebook.class_weight import sample_weights
from gradwire.notebook.ends import Ends
from gradwire.notebook.from_keras import from_keras
from gradwire.notebook.history import Recorder
from gradwire.notebook.local_server import local_server
from gradwire.spec.job import JobSpec
from protos.gradwire.v1 import service_pb2 as pb

SHARDS = 4
MOST = 4
"""Times the wanted number of shards."""

NOT_TAKEN = {
    "callbacks": "would run in this process, where no training is; there are early_stopping={'patience': 3}, "
    "checkpoint=, a schedule as the optimizer's learning rate, gradwire.Client.watch and `gradwire export`",
    "initial_epoch": "is not taken: a call goes on from the model's weights",
    "steps_per_epoch": "is not taken: an epoch is all rows of x",
    "validation_steps": "is not taken: all validation rows are evaluated",
    "validation_batch_size": "is not taken: evaluation takes batch_size",
    "validation_freq": "is not taken; give evaluate_every=, in steps",
}
"""Arguments of `keras.Model.fit` that this one does not have, and what there is in their place."""


def fit(  # noqa: PLR0913 - those of keras.Model.fit
    model: Any,
    x: Any,
    y: Any,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    workers: int = 1,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    padding: Mapping[str, Any] | None = None,
    shuffle: bool = True,
    verbose: str | int = "auto",
    server: str | Client | None = None,
    **options: Any,
) -> Any:
    """Trains a Keras model on the service, and sets the trained weights in it, as `model.fit` would.

    Args:
        model: compiled, unless `loss` and `optimizer` are among the options; Functional or Sequential. Training begins
            with its weights. Layers, losses and metrics may be your own, on a server that allows code.
        x, y, sample_weight: an array, a list in the model's order, or a dict by name; the first axis are the rows.
        class_weight: class to weight, in place of `sample_weight`; for models of one output.
        batch_size: samples of one optimizer step, over all workers.
        validation_data: (x, y) or (x, y, sample_weight), evaluated after each epoch.
        validation_split: this share of the rows, the last ones, is used as validation data.
        padding: for x, y or weights that are lists with an array for each row, of several lengths: {"multiple": 32}
            pads each batch to the multiple of 32 that holds its longest row. As `data.padding` of a job file, by the
            names of inputs and outputs.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for one line per epoch.
        server: an address, a client, or None for $GRADWIRE_SERVER or else a server that lives as long as the call.
        options: as of `JobSpec.from_keras`: loss, optimizer, metrics, seed, threads_per_worker, ...

    Returns:
        A `keras.callbacks.History`. Of more than 1000 epochs, each shorter than a twentieth of a second, some are left
        out of it.

    Raises:
        InvalidSpec: model or data cannot be trained; the violations say why.
        JobFailed: the job failed; the message says why. The model is as it was.
    """
    _refuse(options)
    _build(model, x)
    inputs, outputs = Ends.inputs(model), Ends.outputs(model)
    if class_weight is not None:
        if sample_weight is not None:
            raise InvalidSpec(
                [Violation("class_weight", "and sample_weight are two answers to one question; give one")]
            )
        sample_weight = sample_weights(class_weight, y, outputs)
    train = Table.of((x, y, sample_weight), inputs, outputs, "data", padding)
    validation = None
    if validation_data is not None:
        validation = Table.of(validation_data, inputs, outputs, "validation_data", padding)
    elif validation_split:
        train, validation = train.cut(validation_split)
    with tempfile.TemporaryDirectory(prefix="gradwire-") as name:
        folder = Path(name)
        data = {"train": {"npz": str(folder / "train.npz")}, "shuffle": shuffle}
        data |= train.write(folder / "train.npz", outputs)
        if validation is not None:
            validation.write(folder / "validation.npz", outputs)
            data["validation"] = {"source": {"npz": str(folder / "validation.npz")}}
        given = {
            "global_batch": batch_size,
            "epochs": epochs,
            "workers": workers,
            "shards": _shards(batch_size, workers),
        }
        spec = from_keras(model, data=data, folder=folder, **{**given, **options})
        recorder = Recorder(epochs=epochs, steps_per_epoch=-(-train.rows // batch_size), verbose=verbose)
        with _client(server, spec) as client:
            job = _followed(client, client.submit(spec), recorder)
            client.download(job, "export/keras", folder / "trained.keras")
        _load(model, folder / "trained.keras")
    model.history = recorder.history(model)
    return model.history


def _load(model: Any, path: Path) -> None:
    """Weights alone: a model of the caller's own code is not made anew, and the optimizer keeps its state."""
    optimizer, model.optimizer = getattr(model, "optimizer", None), None
    try:
        model.load_weights(path)
    finally:
        model.optimizer = optimizer


def _followed(client: Client, job: pb.Job, recorder: Recorder) -> pb.Job:
    """The job as it ended, which is in success; an interruption cancels it."""
    try:
        for event in client.watch(job):
            recorder.event(event)
    except KeyboardInterrupt:
        client.cancel(job)
        raise
    recorder.end()
    job = client.get(job)
    if job.state != pb.JOB_STATE_SUCCEEDED:
        message = job.error.message or f"the job {job.id} was cancelled"
        raise JobFailed(message, code=job.error.code or "cancelled", details=job.error.details)
    return job


def _refuse(options: Mapping[str, Any]) -> None:
    violations = [Violation(name, NOT_TAKEN[name]) for name in options if name in NOT_TAKEN]
    if violations:
        raise InvalidSpec(violations)


def _build(model: Any, x: Any) -> None:
    """A Sequential model without an Input takes its shape from the data, as in `model.fit`."""
    if not model.built and hasattr(x, "shape"):
        model.build((None, *x.shape[1:]))


def _shards(batch_size: int, workers: int) -> int:
    """A divisor of the batch: 4 or as many as the workers or somewhat more, else the largest below."""
    wanted = max(SHARDS, workers)
    divisors = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
    if not divisors:
        raise InvalidSpec([Violation("batch_size", f"must be at least 1, not {batch_size}")])
    above = min((count for count in divisors if count >= wanted), default=batch_size + 1)
    below = max((count for count in divisors if count <= wanted), default=1)
    # A batch of 37 would be 37 shards of one sample each, and mostly exchange.
    return above if above <= MOST * wanted and above <= batch_size else below


@contextmanager
def _client(server: str | Client | None, spec: JobSpec) -> Iterator[Client]:
    if isinstance(server, Client):
        yield server
        return
    address = server or os.environ.get("GRADWIRE_SERVER")
    if address:
        with Client(address, token_file=os.environ.get("GRADWIRE_TOKEN_FILE")) as client:
            yield client
        return
    # The caller's own code on the caller's own machine.
    allow_code = spec.model.python is not None
    with local_server(workers=spec.resources.workers, allow_code=allow_code) as local, Client(local) as client:
        yield client

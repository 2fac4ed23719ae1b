"""A job's events as Keras shows training: a progress bar for each epoch, and a `History`."""

from __future__ import annotations

from typing import Any

from gradwire.notebook.ends import caller_keras
from protos.gradwire.v1 import service_pb2 as pb

AUTO, SILENT, BAR, LINES = "auto", 0, 1, 2


class Recorder:
    """Takes a job's events in order; keeps the last values of each epoch, and shows them."""

    def __init__(self, *, epochs: int, steps_per_epoch: int, verbose: str | int) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._verbose = BAR if verbose == AUTO else int(verbose)
        self._training: dict[int, dict[str, float]] = {}
        self._validation: dict[int, dict[str, float]] = {}
        self._bar: Any = None
        self._shown = 0

    def event(self, event: pb.JobEvent) -> None:
        """Counts and shows one event."""
        if event.kind == "progress" and event.metrics:
            self._training[event.epoch] = dict(sorted(event.metrics.items()))
        elif event.kind == "evaluation":
            values = {f"val_{name}": value for name, value in sorted(event.metrics.items())}
            self._validation[event.epoch] = values
            if self._verbose and event.epoch < self._shown:  # training went on meanwhile
                print(f"\nEpoch {event.epoch}: {' - '.join(f'{name}: {value:.4f}' for name, value in values.items())}")
            return  # else it is shown at the end of its epoch's bar
        elif event.kind == "warning" and self._verbose:
            print(f"\nwarning: {event.message}")
            return
        else:
            return
        if self._verbose:
            self._show(event)

    def history(self, model: Any) -> Any:
        """A `keras.callbacks.History` with the epochs that were reported, counted from 0."""
        found = caller_keras().callbacks.History()
        found.set_model(model)
        found.set_params({"verbose": self._verbose, "epochs": self._epochs, "steps": self._steps})
        found.on_train_begin()
        for epoch in sorted(self._training):
            found.on_epoch_end(epoch - 1, {**self._training[epoch], **self._validation.get(epoch, {})})
        return found

    def _show(self, event: pb.JobEvent) -> None:
        if event.epoch != self._shown:
            self._end_bar()
            self._shown = event.epoch
            print(f"Epoch {event.epoch}/{self._epochs}")
            self._bar = caller_keras().utils.Progbar(self._steps, verbose=self._verbose, stateful_metrics=_Everything())
        values = self._training[event.epoch]
        done = event.step - (event.epoch - 1) * self._steps
        # The epoch's evaluation is still to come.
        self._bar.update(min(done, self._steps), list(values.items()), finalize=False)

    def _end_bar(self) -> None:
        if self._bar is not None:
            values = {**self._training.get(self._shown, {}), **self._validation.get(self._shown, {})}
            self._bar.update(self._steps, list(values.items()), finalize=True)
            self._bar = None

    def end(self) -> None:
        """Closes the bar of the last epoch."""
        self._end_bar()


class _Everything:
    """All metrics are shown as they are: a job reports the mean over its epoch so far."""

    def __iter__(self) -> Any:
        return iter(())

    def __contains__(self, name: object) -> bool:
        return True

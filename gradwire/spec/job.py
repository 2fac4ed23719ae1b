"""A job's specification: what a user asks for, with every default filled in.

The models are frozen and know nothing of files, YAML or the wire: `gradwire.spec.file` reads job files,
`gradwire.spec.wire` turns a specification into protobuf and back. Names in YAML and JSON are camelCase.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gradwire.spec.names import misnamed
from gradwire.spec.padding import PaddingSpec
from gradwire.spec.part import ONLY, Part

MAX_SHARDS = 1024
MAX_WORKERS = 1024
MAX_STEPS = 2**31 - 1
MAX_PATTERNS = 100

OPTIMIZER_OWN_FIELDS = {
    "clipnorm": "training.gradientClip",
    "clipvalue": "training.gradientClip",
    "global_clipnorm": "training.gradientClip",
    "gradient_accumulation_steps": "training.accumulation",
    "loss_scale_factor": "training.precision",
}
"""What an optimiser's config would say a second time, and the field that says it."""


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _keyed(value: object) -> object:
    """A bare name, or one Keras object, means the only input or output."""
    if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("name"), str)):
        return {ONLY: value}
    return value


def _metric_lists(value: object) -> object:
    value = {ONLY: value} if isinstance(value, list) else _keyed(value)
    if isinstance(value, dict):
        return {key: item if isinstance(item, list) else [item] for key, item in value.items()}
    return value


class FileRef(Part):
    """A file: on the client until it is uploaded (`path`), then an artifact, or below the server's data root."""

    path: str | None = None
    artifact: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    server_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    label: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.path, self.artifact, self.server_path)) != 1:
            raise ValueError("a file is a path, or server:PATH")
        return self


def _file(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.startswith("server:"):
        return {"server_path": value.removeprefix("server:"), "label": value}
    return {"path": value, "label": value}


File = Annotated[FileRef, BeforeValidator(_file)]


def is_own(name: str) -> bool:
    """Whether a loss or metric is the job's own, named as `module:name` in the source folder of model.python."""
    return ":" in name


class KerasObjectSpec(Part):
    """A Keras loss, metric or optimiser: its public name and its config.

    A loss or metric may be `module:name`, a class or a function of the source folder of model.python.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    config: dict[str, Any] = Field(default_factory=dict)


KerasObject = Annotated[KerasObjectSpec, BeforeValidator(_named)]


class LossSpec(KerasObjectSpec):
    """One head's loss; `weight` is its factor in the total."""

    weight: float = 1.0


class PythonFunction(Part):
    """A function `module:function` in a source folder; the keyword arguments that it is called with."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    source: File
    arguments: dict[str, Any] = Field(default_factory=dict)


class ModelSpec(Part):
    """Where the model comes from: exactly one of its fields."""

    keras: str | None = None
    """What `keras.Model.to_json()` returns, as JSON text."""
    archive: File | None = None
    """A `.keras` file: architecture and starting weights."""
    python: PythonFunction | None = None
    """Returns a `keras.Model`."""

    @model_validator(mode="after")
    def _one_door(self) -> Self:
        if sum(door is not None for door in (self.keras, self.archive, self.python)) != 1:
            raise ValueError("give exactly one of keras, archive, python")
        return self


class DataSource(Part):
    """Rows by index: a built-in data set, a NumPy archive of equally long arrays, or what a function gives."""

    builtin: Literal["digits", "breast_cancer", "diabetes"] | None = None
    npz: File | None = None
    python: PythonFunction | None = None
    """Returns a dict of arrays, or an object with `__len__()` and `arrays(rows)`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.builtin, self.npz, self.python)) != 1:
            raise ValueError("give exactly one of builtin, npz, python")
        return self


class ValidationSpec(Part):
    """A seeded split of the training data, or a source of its own."""

    split: Annotated[float, Field(gt=0, lt=1)] | None = None
    source: DataSource | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.split is None) == (self.source is None):
            raise ValueError("give exactly one of split, source")
        return self


def _for_only(value: object) -> object:
    return {ONLY: value} if isinstance(value, str) else value


Keyed = Annotated[dict[str, str], BeforeValidator(_for_only)]


def _for_all(value: object) -> object:
    """One rule, which has no mapping within, is for all arrays."""
    is_rule = isinstance(value, dict) and value and not any(isinstance(v, dict | Part) for v in value.values())
    return {ONLY: value} if is_rule or isinstance(value, PaddingSpec) else value


class DataSpec(Part):
    """Named arrays to named inputs and outputs."""

    train: DataSource
    inputs: Annotated[Keyed, Field(min_length=1)]
    """Model input name to array name."""
    labels: Annotated[Keyed, Field(min_length=1)]
    """Model output name to array name."""
    sample_weights: Keyed = Field(default_factory=dict)
    """Model output name to array name; the key "" stands for every output."""
    validation: ValidationSpec | None = None
    padding: Annotated[dict[str, PaddingSpec], BeforeValidator(_for_all)] = Field(default_factory=dict)
    """Array name to how its rows of several lengths are padded; the key "" stands for all such arrays that are not
    named, which then have one length in each batch."""
    shuffle: bool = True
    """Whether each epoch is a permutation of the training rows by the job's seed; otherwise they keep their order."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return value


def _multiplier(value: float) -> float:
    if value == 0:
        raise ValueError("must not be 0; to freeze a layer, set its trainable=False")
    return value


Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_pattern)]
"""A regular expression that is looked for in the paths of trained variables, such as dense/kernel."""

Multiplier = Annotated[float, Field(ge=0, le=1e6), AfterValidator(_multiplier)]


class GradientClip(Part):
    """Clipping of the summed gradient."""

    kind: Literal["value", "norm", "global_norm"]
    limit: Annotated[float, Field(gt=0)]


class MovingAverage(Part):
    """An exponential moving average of the trained weights, which evaluation and export take instead of them."""

    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """The average's own share in each step; the new weights have the rest."""


class EarlyStopping(Part):
    """Stops after `patience` evaluations in which `monitor` did not improve by `min_delta`."""

    patience: Annotated[int, Field(ge=1, le=10_000)]
    monitor: Annotated[str, Field(min_length=1)] = "loss"
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    restore_best: bool = False
    """Whether the weights of the best evaluation are exported instead of the last, also where nothing stops the job."""


class CheckpointSpec(Part):
    """When checkpoints are written and which of them stay."""

    every_steps: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """Steps between checkpoints; 0 for the end of each epoch."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    monitor: Annotated[str, Field(min_length=1)] = "loss"
    """The evaluation's (without one: the training's) metric that decides which checkpoint is the best, and stays; with
    `earlyStopping`, its metric decides as well, and what `gradwire export --best` takes."""
    mode: Literal["min", "max"] = "min"


class TrainingSpec(Part):
    """The step and its length; everything here is part of the result."""

    global_batch: Annotated[int, Field(ge=1, le=2**24)]
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] = 4
    strategy: Literal["sync"] = "sync"
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """What layers compute in; weights stay float32. mixed_float16 scales losses, and skips steps that overflow."""
    xla: Literal["off", "on", "auto"] = "off"
    """Whether XLA compiles the gradient program; auto: the first worker measures it, and the job keeps the faster."""
    sparse: Literal["exact", "lazy"] = "exact"
    """How tables that only gathers read are updated. exact: as Keras does with the dense gradient. lazy: weights and
    optimiser state of the rows that a batch gathers, and no others."""
    gradient_clip: GradientClip | None = None
    weight_decay_exclude: list[Pattern] = Field(default_factory=list, max_length=MAX_PATTERNS)
    """Variables that the optimiser's weight decay leaves alone."""
    learning_rate_multipliers: dict[Pattern, Multiplier] = Field(default_factory=dict, max_length=MAX_PATTERNS)
    """Factors of the learning rate; 1 for variables that no pattern finds."""
    accumulation: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Micro-batches that each shard is computed in, one after the other; the batch of a step stays `global_batch`."""
    moving_average: MovingAverage | None = None
    evaluate_every: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """Steps between evaluations; 0 for the end of each epoch."""
    early_stopping: EarlyStopping | None = None
    checkpoint: CheckpointSpec = CheckpointSpec()
    on_nonfinite: Literal["fail", "skip"] = "fail"
    """What becomes of a step whose loss or gradient is not finite: skip leaves everything as it was before."""
    disconnected: Literal[0] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs, steps")
        if self.global_batch % self.shards:
            below = self.global_batch - self.global_batch % self.shards
            near = f"{below} or {below + self.shards}" if below else f"{self.shards}"
            raise ValueError(f"globalBatch {self.global_batch} is no multiple of shards {self.shards}; take {near}")
        capacity = self.global_batch // self.shards
        if self.accumulation > capacity:
            raise ValueError(f"accumulation {self.accumulation} is more than the {capacity} samples of a shard")
        return self


class ResourceSpec(Part):
    """How the job runs; nothing here but `threads_per_worker` is part of the result."""

    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    min_workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    """The job starts with no fewer workers than this."""
    cpus_per_worker: Annotated[float, Field(gt=0, le=4096)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] = 0.0
    threads_per_worker: Annotated[int, Field(ge=1, le=4096)] = 1
    """Intra-op threads; other counts give other bits."""
    exchange: Literal["auto", "flight"] = "auto"
    """flight: workers on the trainer's node, too, exchange by Arrow Flight, as those of other nodes; to measure it."""
    spares: Annotated[int, Field(ge=0, le=MAX_WORKERS)] = 0
    """Workers more that are kept traced and ready, where there is room that nobody waits for; one of them takes over as
    soon as another dies."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_workers > self.workers:
            raise ValueError(f"minWorkers {self.min_workers} is more than workers {self.workers}")
        return self


class ReportingSpec(Part):
    """What is shown of the training; nothing here is part of the result."""

    histograms_every: Annotated[int, Field(ge=0, le=MAX_STEPS)] | None = None
    """Steps between histograms of weights and summed gradients for TensorBoard; 0 for none. Without it a hundred over
    the job, or fewer where they would take more than 1/200 of its time."""


class JobSpec(Part):
    """A training job."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w][\w .\-]*$")]
    model: ModelSpec
    data: DataSpec
    loss: Annotated[dict[str, Annotated[LossSpec, BeforeValidator(_named)]], BeforeValidator(_keyed)] = Field(
        min_length=1
    )
    optimizer: KerasObject
    metrics: Annotated[dict[str, list[KerasObject]], BeforeValidator(_metric_lists)] = Field(default_factory=dict)
    training: TrainingSpec
    resources: ResourceSpec = ResourceSpec()
    reporting: ReportingSpec = ReportingSpec()

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        for field, instead in OPTIMIZER_OWN_FIELDS.items():
            if self.optimizer.config.get(field) is not None:
                raise ValueError(f"optimizer.config.{field} is not taken; say it as {instead}")
        if self.optimizer.config.get("use_ema"):
            raise ValueError("optimizer.config.use_ema is not taken; say it as training.movingAverage")
        if self.training.early_stopping is not None and self.data.validation is None:
            raise ValueError(
                "training.earlyStopping counts evaluations, of which there are none without data.validation"
            )
        least, shards = self.resources.min_workers, self.training.shards
        if least > shards:
            raise ValueError(
                f"resources.minWorkers {least} is more than training.shards {shards}: no shard is cut for two workers"
            )
        for fault in misnamed(self):
            raise ValueError(fault)
        return self

    @classmethod
    def from_keras(
        cls,
        model: Any,
        *,
        data: Any,
        loss: Any = None,
        optimizer: Any = None,
        metrics: Any = None,
        **options: Any,
    ) -> JobSpec:
        """The specification of a job that trains a Keras model of this process, from the weights that it has.

        Args:
            model: a built Functional or Sequential model of Keras's own layers. What it was compiled with stands for
                what is not given here.
            data: (x, y) or (x, y, sample_weight), each an array, a list in the model's order or a dict by name; or the
                `data` of a job file as a mapping.
            loss: a name, class, function or object of Keras; of several outputs a list or a dict.
            optimizer: a name or an object of Keras; its clipping becomes training.gradientClip.
            metrics: a list, or a dict of lists by output.
            options: `loss_weights`; `padding`, with which rows of several lengths are lists with an array for each;
                `name`; `trust`, the packages whose layers the server knows; and every field of `training`,
                `resources` and `reporting`: global_batch=32, epochs=3, workers=2.

        Model and arrays are written to a folder that goes with this process, so submit the job before it ends.

        Raises:
            InvalidSpec: what is wrong, with its field.
        """
        # It knows Keras's ways, which the specification itself does without.
        from gradwire.notebook.from_keras import from_keras  # noqa: PLC0415

        return from_keras(model, data=data, loss=loss, optimizer=optimizer, metrics=metrics, **options)

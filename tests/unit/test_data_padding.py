"""Rows of several lengths: how sources give them, and what batches are padded to."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire
from gradwire.errors import JobFailed
from gradwire.packing import pack
from gradwire.ragged_rows import Ragged
from gradwire.spec.job import PythonFunction, TrainingSpec
from gradwire.spec.padding import PaddingSpec
from gradwire.storage import Storage
from workers.data.batch import BatchMaker
from workers.data.cache import Cache
from workers.data.micro_batches import MicroBatches
from workers.data.npz import Archive, open_npz
from workers.data.padding import Padding
from workers.data.python_source import open_python
from workers.data.row_order import RowOrder
from workers.data.schedule import Schedule
from workers.data.shard_shape import MAX_AHEAD, ShardShape, first_shapes
from workers.data.source import ArraySource, Source
from workers.data.split import SubsetSource, split
from workers.source_code import CodePlace

LENGTHS = (3, 0, 5, 2, 9, 1)
TEXT = [np.arange(1, length + 1) for length in LENGTHS]
LABEL = np.arange(6)
ALL = np.arange(6)


def rule(**fields: Any) -> PaddingSpec:
    return PaddingSpec.model_validate(fields)


def rows(**more: Any) -> ArraySource:
    return ArraySource("rows.npz", {"text": Ragged.of(TEXT), "label": LABEL, **more})


def maker(source: Source, weights: dict[str, str] | None = None, **rules: PaddingSpec) -> BatchMaker:
    padding = Padding.of({name.replace("every", ""): rule for name, rule in rules.items()}, [source])
    return BatchMaker(
        source,
        inputs={"in": "text"},
        labels={"out": "label"},
        sample_weights=weights or {},
        input_dtypes={"in": "int32"},
        padding=padding,
    )


def opened(folder: Path, **arrays: Any) -> ArraySource:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    archive = Archive(name="data.npz", sha256="0" * 64, open=lambda: io.BytesIO(buffer.getvalue()))
    return open_npz(archive, Cache(folder), ["text", "label"])


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(JobFailed) as error:
        call()
    assert error.value.code in ("data_shape", "data_dtype")
    return error.value.message


def test_an_archive_has_values_and_lengths(tmp_path: Path) -> None:
    source = opened(tmp_path, label=LABEL, **gradwire.ragged(text=TEXT))
    taken = source.take(np.array([4, 1, 0, 4]))["text"]
    assert isinstance(taken, Ragged)
    assert [taken.cut(row, row + 1).values.tolist() for row in range(4)] == [TEXT[row].tolist() for row in (4, 1, 0, 4)]
    assert source.rows == 6
    assert source.longest("text") == 9
    assert source.lengths("text", np.array([2, 1])).tolist() == [5, 0]


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ([20, 0, 0, 0, 0, 1], "adds up to 21, but array 'text' has 20 values"),
        ([-1, 0, 5, 2, 9, 5], "'text.lengths' is -1 in row 0"),
        ([0, 0, 2**62, 0, 0, 0], "in row 2 (counted from 0), of 20 values in all"),
        ([3.0, 0, 5, 2, 9, 1], "give one whole number a row"),
        ([20], "'text.lengths' has 1"),
    ],
)
def test_lengths_fit_the_values(tmp_path: Path, lengths: list[Any], says: str) -> None:
    arrays = {"text": np.concatenate(TEXT), "text.lengths": np.array(lengths), "label": LABEL}
    assert says in refusal(lambda: opened(tmp_path, **arrays))


def test_a_batch_has_the_length_of_its_longest_row_over_all_shards() -> None:
    batches = maker(rows(), text=rule(multiple=4, value=7))
    lengths = batches.lengths(np.array([0, 2, 3]))
    assert lengths == (8,)
    batch = batches.make(np.array([3, 1]), lengths)
    assert batch.inputs["in"].tolist() == [[1, 2, *[7] * 6], [7] * 8]
    assert batch.inputs["in"].ctypes.data % 64 == 0
    assert batches.make(np.array([3, 1])).inputs["in"].shape == (2, 4)  # a batch of its own, as in evaluation
    assert batches.make(np.array([], np.int64), (8,)).inputs["in"].shape == (0, 8)
    assert maker(rows(), text=rule(buckets=[3, 9])).lengths(np.array([1])) == (3,)


def test_rows_keep_their_inner_shape() -> None:
    wide = [np.full((length, 2), length, np.float32) for length in LENGTHS]
    source = ArraySource("rows.npz", {"text": Ragged.of(wide), "label": LABEL})
    found = maker(source, every=rule(multiple=5)).make(np.array([3]))
    assert found.inputs["in"].tolist() == [[[2, 2], [2, 2], [0, 0], [0, 0], [0, 0]]]


def test_one_rule_for_all_arrays_gives_them_one_length_and_weights_no_weight() -> None:
    tags = [row[: len(row) // 2] for row in TEXT]
    source = ArraySource(
        "rows.npz",
        {"text": Ragged.of(TEXT), "label": Ragged.of(tags), "weight": Ragged.of([np.ones(len(row)) for row in TEXT])},
    )
    batch = maker(source, {"out": "weight"}, every=rule(multiple=2, value=9)).make(np.array([3]))
    assert batch.inputs["in"].tolist() == [[1, 2]]
    assert batch.labels["out"].tolist() == [[1, 9]]
    batch = maker(source, {"out": "weight"}, every=rule(multiple=4, value=9)).make(np.array([3]))
    assert batch.sample_weights["out"].tolist() == [[1, 1, 0, 0]]
    own = maker(source, {"out": "weight"}, every=rule(multiple=4), weight=rule(multiple=3, value=1))
    assert own.make(np.array([3])).sample_weights["out"].tolist() == [[1, 1, 1]]


def test_long_rows_are_refused_or_cut_off_on_request() -> None:
    cut = maker(rows(), text=rule(buckets=[2, 4], truncate=True))
    assert cut.make(np.array([4, 5])).inputs["in"].tolist() == [[1, 2, 3, 4], [1, 0, 0, 0]]
    said = refusal(lambda: maker(rows(), text=rule(buckets=[2, 4])))
    assert "array 'text' has a row of length 9 in row 4 (counted from 0), and data.padding.text goes up to 4" in said
    assert "give a longer bucket, or truncate: true" in said
    sides = [SubsetSource(rows(), side) for side in split(6, 0.5, 0)]
    said = refusal(lambda: Padding.of({"": rule(buckets=[4])}, sides))
    assert "row of length 9 in row 4" in said or "row of length 5 in row 2" in said
    assert "larger max" in refusal(lambda: maker(rows(), every=rule(multiple=2, max=8)))


def test_rules_and_arrays_fit() -> None:
    said = refusal(lambda: maker(rows()))
    assert "'text' has rows of several lengths, of which the longest is 9" in said
    assert "data.padding.text: {multiple: 32}" in said
    assert "data.padding.label: array 'label' has rows of one shape" in refusal(
        lambda: maker(rows(), every=rule(multiple=4), label=rule(multiple=4))
    )
    plain = ArraySource("rows.npz", {"text": np.zeros((6, 3)), "label": LABEL})
    assert "data.padding: all arrays have rows of one shape" in refusal(lambda: maker(plain, every=rule(multiple=4)))
    assert "filled up with 0.5, which int32 cannot hold" in refusal(
        lambda: maker(rows(), text=rule(multiple=4, value=0.5))
    )


def test_lengths_are_bounded_and_an_only_one_is_no_longer_open() -> None:
    def of(**fields: Any) -> Padding:
        return maker(rows(), text=rule(**fields)).padding

    assert of(buckets=[4, 9, 16]).max_shapes == 3
    assert of(multiple=4).max_shapes == 3  # the longest row is 9
    assert of(multiple=4, max=16).max_shapes == 4
    assert str(of(multiple=4)) == "each batch pads text to 4, 8 or 12: at most 3 traces for each size of a shard"
    assert str(of(multiple=1)) == "each batch pads text to a multiple of 1: at most 9 traces for each size of a shard"
    assert "text to 16:" in str(of(buckets=[16]))
    assert of(multiple=4).infos["text"].shape == (None,)
    assert of(buckets=[16]).infos["text"].shape == (16,)
    assert of(multiple=9).infos["text"].shape == (9,)


def test_a_value_that_does_not_fit_is_told_with_its_row() -> None:
    text = [row * 100_000 for row in TEXT]
    source = ArraySource("rows.npz", {"text": Ragged.of([*text[:4], text[4] * 100_000, text[5]]), "label": LABEL})
    assert "array 'text' has 10000000000 in row 4" in refusal(
        lambda: maker(source, every=rule(multiple=4)).make(np.array([1, 0, 4]))
    )


def test_the_shapes_of_the_first_steps_are_known_beforehand() -> None:
    generator = np.random.default_rng(0)
    text = [np.ones(length) for length in generator.integers(0, 400, 1000)]
    source = ArraySource("rows.npz", {"text": Ragged.of(text), "label": np.arange(1000)})
    batches = maker(source, text=rule(multiple=7))
    training = TrainingSpec.model_validate({"globalBatch": 16, "steps": 40, "shards": 2, "accumulation": 3})
    schedule = Schedule.of(training, source.rows)
    order, parts = RowOrder(schedule), MicroBatches.of(3, 8)
    found = first_shapes(schedule, parts, batches, order)
    assert len(found) == MAX_AHEAD
    lengths = {batches.lengths(order.batch(step)) for step in range(32)}
    assert {shape.lengths for shape in found} <= lengths
    assert {shape.samples for shape in found} == {2, 3}
    everything = np.concatenate([order.ids(5, 0), order.ids(5, 1)])
    assert np.array_equal(order.batch(5), everything)
    assert batches.lengths(order.batch(5)) == (-(-max(len(text[row]) for row in everything) // 7) * 7,)
    said = refusal(lambda: maker(source, text=rule(multiple=1)))
    assert "are 399 lengths, of which each is traced, and 64 are the most: take 7 or more, or buckets" in said
    plain = BatchMaker(source, inputs={}, labels={"o": "label"}, sample_weights={}, input_dtypes={})
    assert first_shapes(schedule, parts, plain, order) == (ShardShape(2, ()), ShardShape(3, ()))


CODE = """
import numpy as np

LENGTHS = (3, 0, 5, 2, 9, 1)

class Rows:
    def __len__(self):
        return 6

    def arrays(self, rows):
        return {"text": [np.arange(1, LENGTHS[row] + 1) for row in rows], "label": rows}

class Told(Rows):
    def arrays(self, rows):
        assert len(rows) < 6, "read whole"
        return super().arrays(rows)

    def lengths(self, rows):
        return {"text": np.array(LENGTHS)[rows]}

class Wrong(Rows):
    def lengths(self, rows):
        return {"text": [1.5] * len(rows)}

class Short(Rows):
    def lengths(self, rows):
        return {"text": np.array(LENGTHS)[rows] // 2}

class Stacked(Rows):
    def arrays(self, rows):
        return {"text": np.ones((len(rows), max(LENGTHS[row] for row in rows))), "label": rows}

def table():
    return Rows().arrays(np.arange(6))
"""


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Source]]:
    """Opens a function of the code above; `padded` are the arrays that have rules."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "ragged_source.py").write_text(CODE)
    pack(tmp_path / "code", tmp_path / "code.zip")
    monkeypatch.setattr(sys, "path", [*sys.path])
    place = CodePlace(storage=Storage(str(tmp_path)), cache_dir=tmp_path, data_root=tmp_path, is_allowed=True)

    def open_(function: str, *padded: str) -> Source:
        spec = PythonFunction.model_validate({"function": f"ragged_source:{function}", "source": "server:code.zip"})
        return open_python(spec, place, ["text", "label"], padded=padded, field="data.train.python")

    yield open_
    sys.modules.pop("ragged_source", None)


@pytest.mark.parametrize("function", ["Rows", "Told", "table"])
def test_a_function_gives_a_list_of_rows(python: Callable[..., Source], function: str) -> None:
    for padded in ("text", ""):
        source = python(function, padded)
        batches = maker(source, **{padded or "every": rule(multiple=4)})
        assert batches.lengths(ALL) == (12,)
        assert batches.make(np.array([2, 1]), (8,)).inputs["in"].tolist() == [[1, 2, 3, 4, 5, 0, 0, 0], [0] * 8]
        assert batches.knows_lengths == (function == "table")
        assert source.take(np.array([], np.int64))["text"].values.shape == (0,)


def test_what_a_function_says_of_rows_that_are_not_padded(python: Callable[..., Source]) -> None:
    assert "data.padding.text: {multiple: 32}" in refusal(lambda: python("table"))
    stacked = python("Stacked")
    said = refusal(lambda: stacked.take(np.array([2])))
    assert "array 'text' has rows of (5,) float64, and had (3,) float64 in row 0" in said
    assert "data.padding.text: {multiple: 32}" in said
    wrong = maker(python("Wrong", "text"), text=rule(multiple=4))
    assert "lengths(rows) must give" in refusal(lambda: wrong.lengths(ALL))
    padded = maker(python("Stacked", "text"), text=rule(multiple=4))
    assert padded.lengths(np.array([0, 2])) == (8,)
    assert "row 0 of 'text' has length 3, and it was before 5: give every row as it is" in refusal(
        lambda: padded.make(np.array([0]))
    )
    assert "row 2 of 'text' has length 5, and lengths(rows) says 2" in refusal(
        lambda: maker(python("Short", "text"), text=rule(multiple=4)).make(np.array([2]))
    )
    late = maker(python("Rows", "text"), text=rule(buckets=[2, 8]))
    assert "has a row of length 9 in row 4" in refusal(lambda: late.lengths(np.array([3, 4])))

"""What `gradwire.fit` makes of Keras's arguments before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwire.errors import InvalidSpec
from gradwire.notebook.arrays import Table
from gradwire.notebook.class_weight import sample_weights
from gradwire.notebook.ends import Ends
from gradwire.notebook.fit import NOT_TAKEN, _shards, fit
from gradwire.notebook.objects import loss_fields
from gradwire.notebook.own_code import OwnCode

ONE = Ends(("label",), {})
TWO = Ends(("kind", "size"), {})
WEIGHTS = {0: 0.5, 2: 4.0}


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 2, 2],
        np.array([[0], [1], [2], [2]], np.int32),
        np.array([0.0, 1.0, 2.0, 2.0], np.float32),
        np.eye(3)[[0, 1, 2, 2]],
    ],
)
def test_classes_weigh_as_they_are_said_to(y: Any) -> None:
    np.testing.assert_array_equal(sample_weights(WEIGHTS, y, ONE), np.array([0.5, 1, 4, 4], np.float32))


@pytest.mark.parametrize(
    ("y", "outputs", "part"),
    [([0, 1], TWO, "kind, size"), ([0.5, 1.0], ONE, "classes"), (np.zeros((2, 3, 4)), ONE, "classes")],
)
def test_weights_of_what_are_no_classes_are_refused(y: Any, outputs: Ends, part: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        sample_weights(WEIGHTS, y, outputs)
    assert part in caught.value.message


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_an_argument_that_only_keras_has_says_what_there_is_instead(name: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        fit(None, None, None, **{name: 1})
    assert caught.value.message == f"{name}: {NOT_TAKEN[name]}"


@pytest.mark.parametrize(
    ("batch_size", "workers", "shards"),
    [(32, 1, 4), (32, 6, 8), (37, 1, 1), (37, 2, 1), (30, 1, 5), (2, 1, 2), (1, 3, 1), (34, 2, 2), (64, 64, 64)],
)
def test_shards_divide_the_batch_and_are_not_crumbs(batch_size: int, workers: int, shards: int) -> None:
    assert _shards(batch_size, workers) == shards


def test_weights_of_losses_are_for_outputs() -> None:
    with pytest.raises(InvalidSpec, match=r"loss_weights: the model has no 'knd'; did you mean kind\?"):
        loss_fields("mse", {"knd": 1.0}, TWO, OwnCode(None, {}))


ROWS = [np.arange(length) for length in (1, 3, 2, 4)]
WORDS = Ends(("words",), {"text": "words"})


def test_lists_of_rows_become_values_and_lengths(tmp_path: Path) -> None:
    table = Table.of((ROWS, [0, 1, 2, 2]), WORDS, ONE, "data", {"text": {"multiple": 4}})
    train, validation = table.cut(0.5)
    said = train.write(tmp_path / "train.npz", ONE)
    assert said["padding"] == {"x": {"multiple": 4}}
    validation.write(tmp_path / "validation.npz", ONE)
    for name, values, lengths in (("train", [0, 0, 1, 2], [1, 3]), ("validation", [0, 1, 0, 1, 2, 3], [2, 4])):
        with np.load(tmp_path / f"{name}.npz") as file:
            assert file["x"].tolist() == values
            assert file["x.lengths"].tolist() == lengths
    both = Table.of((ROWS, [row * 2 for row in ROWS]), WORDS, ONE, "data", {"multiple": 4})
    assert both.write(tmp_path / "both.npz", ONE)["padding"] == {"multiple": 4}
    with np.load(tmp_path / "both.npz") as file:
        assert file["y.lengths"].tolist() == [1, 3, 2, 4]


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        (None, "x.words: has rows of several lengths: say what they are padded to, as padding={'multiple': 32}"),
        ({"wrods": {"multiple": 4}}, "padding: the model has no 'wrods'; did you mean words?"),
    ],
)
def test_rows_of_several_lengths_need_padding(padding: Any, says: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        Table.of((ROWS, [0, 1, 2, 2]), WORDS, ONE, "data", padding)
    assert says in caught.value.message

"""Which columns of an input reach a lookup: through whatever passes values on, and not through what computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from workers.ids import IdInput, id_inputs

pytestmark = pytest.mark.integration

SAMPLES, ROWS = 6, 11


def found(select: Callable[[Any], Any], shape: tuple[int, ...] = (4,)) -> list[IdInput]:
    """Of a program that looks up what a function makes of its only input, x."""
    table = tf.Variable(tf.zeros((ROWS, 3)))
    function = tf.function(lambda x: tf.gather(table, select(x)), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((SAMPLES, *shape), tf.int32))
    return id_inputs(concrete.graph, ["x"], {"t": table})


@pytest.mark.parametrize(
    ("select", "columns"),
    [
        (lambda x: x, ()),
        (lambda x: tf.reshape(x[..., None], (-1,)), ()),
        (lambda x: x[:, 2], (2,)),
        (lambda x: x[:, -1:], (3,)),
        (lambda x: x[:, ::2], (0, 2)),
        (lambda x: tf.cast(x, tf.int64)[..., 1][:, None], (1,)),
        (lambda x: tf.split(x, 2, axis=1)[1], (2, 3)),
        (lambda x: tf.split(x, [1, 3], axis=1)[0], (0,)),
        (lambda x: tf.unstack(x, axis=1)[3], (3,)),
        (lambda x: tf.slice(x, [0, 1], [-1, 2]), (1, 2)),
        (lambda x: tf.gather(x, [3, 0], axis=1), (0, 3)),
        (lambda x: tf.transpose(x)[1], (1,)),
        (lambda x: tf.concat([x[:, :1], x[:, 3:]], axis=1)[:, 1], (3,)),
        (lambda x: tf.stack([x[:, 0], x[:, 2]], axis=1), (0, 2)),
        (lambda x: tf.where(x < 0, x + ROWS, x)[:, 1], (1,)),
    ],
)
def test_the_columns_that_get_there(select: Callable[[Any], Any], columns: tuple[int, ...]) -> None:
    numbers = sorted({column for item in found(select) for column in item.columns or range(4 if not columns else 0)})
    assert numbers == list(columns or range(4))


@pytest.mark.parametrize(
    "select",
    [lambda x: x % ROWS, lambda x: x[::2], lambda x: tf.gather(x, x[0, :1] % 4, axis=1), lambda x: x[:, 0] * 2],
)
def test_what_is_computed_or_differs_by_sample_is_left_to_the_look_at_the_gradient(
    select: Callable[[Any], Any],
) -> None:
    assert not found(select)


def test_columns_count_in_a_sample_s_flat_order() -> None:
    assert found(lambda x: x[:, 1, 2], (2, 3)) == [IdInput("x", "t", ROWS, (5,), 6)]

"""What a person will watch next, from what they watched, who they are, and nothing else: MovieLens-100K."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

HISTORY = 20
MISSING = (
    "the MovieLens-100K data come with the package recbole: pip install --no-deps recbole==1.2.1, where the server runs"
)


def table(name: str) -> list[list[str]]:
    """One of the data set's files, read from the installed package; its first line names the columns."""
    found = importlib.util.find_spec("recbole")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(MISSING)
    path = Path(found.submodule_search_locations[0]) / "dataset_example" / "ml-100k" / f"ml-100k.{name}"
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


@functools.cache
def watched() -> list[list[int]]:
    """For each user, the films they rated, in time's order; user and film numbers count from 1."""
    films: list[list[tuple[float, int]]] = [[] for _ in range(944)]
    for user, film, _, time in table("inter"):
        films[int(user)].append((float(time), int(film)))
    return [[film for _, film in sorted(one)] for one in films]


@functools.cache
def people() -> np.ndarray:
    """Age group, gender and occupation of each user, as whole numbers."""
    rows = {int(user): (int(age) // 10, gender, occupation) for user, age, gender, occupation, _ in table("user")}
    jobs = sorted({occupation for _, _, occupation in rows.values()})
    found = np.zeros((944, 3), np.int32)
    for user, (age, gender, occupation) in rows.items():
        found[user] = age, gender == "F", jobs.index(occupation)
    return found


@functools.cache
def popularity() -> np.ndarray:
    """How often each film was watched, but for everyone's last one."""
    return np.bincount([film for films in watched() for film in films[:-1]], minlength=1683).astype(np.float32)


def rows(part: str) -> dict[str, np.ndarray]:
    """Every film with the films before it; everyone's last film is for validation."""
    found: dict[str, list[Any]] = {"user": [], "history": [], "next": []}
    for user, films in enumerate(watched()):
        places = range(1, len(films) - 1) if part == "train" else [len(films) - 1] if films else []
        for place in places:
            before = films[max(place - HISTORY, 0) : place]
            found["user"].append(user)
            found["history"].append([0] * (HISTORY - len(before)) + before)
            found["next"].append(films[place])
    arrays = {name: np.array(values, np.int32) for name, values in found.items()}
    return {**arrays, "person": people()[arrays["user"]]}


class Films(layers.Layer):
    """One table of films for what was watched and for what may come."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(
            shape=(1683, self.size), initializer=keras.initializers.RandomNormal(0.0, 0.05), name="table"
        )

    def call(self, films: Any) -> Any:
        """The mean of the films before (long ago counts less) and the last one."""
        vectors = ops.take(self.table, films, axis=0)
        weights = ops.cast(films > 0, "float32") * ops.power(0.8, ops.arange(HISTORY - 1, -1, -1, dtype="float32"))
        mean = ops.sum(vectors * weights[..., None], axis=1) / (ops.sum(weights, axis=1, keepdims=True) + 1e-6)
        return ops.concatenate([mean, vectors[:, -1]], axis=-1)


class Score(layers.Layer):
    """Scores every film, by the same table."""

    def __init__(self, films: Films, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.films = films

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(1683,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        return 8.0 * ops.matmul(x, ops.transpose(self.films.table)) + self.bias


def ndcg_10(y_true: Any, y_pred: Any) -> Any:
    """1 / log2(place + 1) where the film is among the first ten of all films, else 0."""
    label = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
    own = tf.gather(y_pred, label, axis=1, batch_dims=1)
    place = tf.reduce_sum(tf.cast(y_pred > own[:, None], tf.float32), axis=1)
    return tf.where(place < 10.0, 1.0 / (tf.math.log(place + 2.0) / tf.math.log(2.0)), tf.zeros_like(place))


def popular_ndcg_10(y_true: Any, y_pred: Any) -> Any:
    """What the same list of the most popular films for everyone would get."""
    return ndcg_10(y_true, tf.zeros_like(y_pred) + tf.constant(popularity()))


def build(size: int = 32) -> keras.Model:
    user, person = keras.Input((), dtype="int32", name="user"), keras.Input((3,), dtype="int32", name="person")
    history = keras.Input((HISTORY,), dtype="int32", name="history")
    films = Films(size, name="films")
    who = layers.Embedding(944, 16, name="users")(user)
    context = [layers.Embedding(count, 8, name=name)(person[:, column]) for column, (name, count) in enumerate(CONTEXT)]
    value = layers.Concatenate(name="all")([films(history), who, *context])
    wide = layers.Dense(2 * size, activation="relu", name="wide")(layers.Dropout(0.3, name="drop")(value))
    value = layers.Dense(size, name="taste")(layers.Concatenate(name="skip")([wide, value]))
    return keras.Model({"user": user, "person": person, "history": history}, Score(films, name="next")(value))


CONTEXT = (("age", 10), ("gender", 2), ("occupation", 21))

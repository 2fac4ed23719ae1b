"""Tables are filled once, by the trainer, in pieces; workers' models take no memory for them."""

from __future__ import annotations

import keras
import numpy as np
import psutil
import pytest

from workers.models import piecewise as pieces
from workers.models.piecewise import filled, piecewise
from workers.models.unfilled import unfilled

pytestmark = pytest.mark.integration


def embedding(rows: int) -> keras.layers.Embedding:
    made = keras.layers.Embedding(rows, 64, embeddings_initializer=keras.initializers.RandomUniform(seed=5))
    made.build(None)
    return made


INITIALIZERS = {
    "uniform": keras.initializers.RandomUniform(-0.3, 0.7, seed=12),
    "normal": keras.initializers.RandomNormal(0.1, 0.2, seed=12),
    "truncated": keras.initializers.TruncatedNormal(0.1, 0.2, seed=12),
    "glorot": keras.initializers.GlorotUniform(seed=12),
    "he": keras.initializers.HeNormal(seed=12),
    "lecun": keras.initializers.VarianceScaling(2.0, distribution="untruncated_normal", seed=12),
}


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("shape", [(1000, 7), (123, 100), (5000, 4), (3,)])
def test_pieces_have_the_bits_of_the_whole(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ELEMENTS", 4096)
    initializer = INITIALIZERS[name]
    assert filled(initializer, shape).tobytes() == np.asarray(initializer(shape)).tobytes()


def test_a_large_embedding_starts_as_keras_starts_it() -> None:
    with piecewise():
        ours = embedding(70_000)
    assert np.asarray(ours.embeddings).tobytes() == np.asarray(embedding(70_000).embeddings).tobytes()


def test_an_unfilled_table_takes_no_memory() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    with unfilled():
        table = embedding(4_000_000)
    assert process.memory_info().rss - before < 100e6, "of 1 GB"
    assert not np.asarray(table.embeddings[123]).any()
    assert np.asarray(embedding(30).embeddings).any(), "outside the block all is as ever"

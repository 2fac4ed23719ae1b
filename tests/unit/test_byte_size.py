"""Sizes for people."""

from __future__ import annotations

import pytest

from gradwire.byte_size import byte_size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (8936, "8.9 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
        (4_100_000_000, "4.1 GB"), (3e15, "3000.0 TB"),
    ],
)  # fmt: skip
def test_three_figures_and_a_unit(size_bytes: float, text: str) -> None:
    assert byte_size(size_bytes) == text

"""A shuffle of any number of rows that needs no table."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field

import numpy as np

ROUNDS = 12
"""Even, and enough that over many keys all orders of up to five rows come equally often."""

MAX_ROWS = 1 << 62
"""Both halves of a position stay below 2^32, so that no product overflows 64 bits."""


def _round_keys(rows: int, key: tuple[int, ...]) -> list[np.uint64]:
    """One 64-bit number per round from all of `rows` and `key`; equal on every machine."""
    text = struct.pack(f"<{len(key) + 2}q", rows, len(key), *key)
    digests = [hashlib.blake2b(text, digest_size=8, salt=struct.pack("<Q", number)) for number in range(ROUNDS)]
    return [np.uint64(int.from_bytes(digest.digest(), "little")) for digest in digests]


def _below(half: np.ndarray, key: np.uint64, bound: np.uint64) -> np.ndarray:
    """The round function: pseudo-random numbers in [0, bound) from a half, by SplitMix64's finaliser."""
    mixed = half ^ key
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed >>= np.uint64(32)
    mixed *= bound
    mixed >>= np.uint64(32)
    return mixed


@dataclass(frozen=True, slots=True)
class Permutation:
    """A seeded bijection of [0, rows), computed position by position.

    A generalised Feistel network: a position is (left, right) in Z_a x Z_b with a * b just above `rows`, and rounds
    add a function of one half to the other, modulo a or b. What falls outside [0, rows) goes through the network again
    (cycle walking). Both are of Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002; the round
    function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), keyed by BLAKE2b. Not a cipher: it
    shuffles, it hides nothing.

    Args:
        rows: from 1 to `MAX_ROWS`.
        key: any number of signed 64-bit integers; every other key, length included, is another permutation.
    """

    rows: int
    key: tuple[int, ...]
    _radix: tuple[np.uint64, np.uint64] = field(init=False, repr=False, compare=False)
    _round_keys: list[np.uint64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MAX_ROWS:
            raise ValueError(f"a permutation is of 1 to {MAX_ROWS} rows, not {self.rows}")
        left = math.isqrt(self.rows - 1) + 1
        object.__setattr__(self, "_radix", (np.uint64(left), np.uint64(-(-self.rows // left))))
        object.__setattr__(self, "_round_keys", _round_keys(self.rows, self.key))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """What stands at these positions: int64 in, new int64 array of the same shape out.

        Raises:
            IndexError: a position outside [0, rows).
        """
        return self._walk(positions, is_inverse=False)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """At which positions these values stand; `inverse(at(p)) == p`.

        Raises:
            IndexError: a value outside [0, rows).
        """
        return self._walk(values, is_inverse=True)

    def _walk(self, numbers: np.ndarray, *, is_inverse: bool) -> np.ndarray:
        if numbers.size and (numbers.min() < 0 or numbers.max() >= self.rows):
            raise IndexError(f"a permutation of {self.rows} rows has no {numbers.min()} to {numbers.max()}")
        network = self._backward if is_inverse else self._forward
        found = network(numbers.astype(np.uint64).ravel())
        while (outside := np.flatnonzero(found >= np.uint64(self.rows))).size:
            found[outside] = network(found[outside])
        return found.astype(np.int64).reshape(numbers.shape)

    def _forward(self, numbers: np.ndarray) -> np.ndarray:
        a, b = self._radix
        left, right = np.divmod(numbers, b)
        for first, second in zip(self._round_keys[::2], self._round_keys[1::2], strict=True):
            left += _below(right, first, a)
            left = np.minimum(left, left - a)  # modulo a: below a, the difference wraps to a huge number
            right += _below(left, second, b)
            right = np.minimum(right, right - b)
        return left * b + right

    def _backward(self, numbers: np.ndarray) -> np.ndarray:
        a, b = self._radix
        left, right = np.divmod(numbers, b)
        for first, second in zip(self._round_keys[-2::-2], self._round_keys[::-2], strict=True):
            right -= _below(left, second, b)
            right = np.minimum(right, right + b)
            left -= _below(right, first, a)
            left = np.minimum(left, left + a)
        return left * b + right

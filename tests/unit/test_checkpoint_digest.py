import hashlib
import struct

import ml_dtypes
import numpy as np

from service.training.digest import weights_digest

KERNEL = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
COUNT = np.array(7, np.int64)


def test_the_digest_is_sha256_over_little_endian_values_in_order() -> None:
    content = struct.pack("<4f", 1, 2, 3, 4) + struct.pack("<q", 7) + struct.pack("<h", 1) + b"\x80\x3f"
    raw = {"b": np.array([1.0], ml_dtypes.bfloat16), "a": np.array([1], np.int16)}
    assert weights_digest([KERNEL], [COUNT], raw) == hashlib.sha256(content).hexdigest()


def test_memory_layout_and_byte_order_do_not_count() -> None:
    expected = weights_digest([KERNEL], [COUNT], {})
    assert weights_digest([np.asfortranarray(KERNEL)], [COUNT.astype(">i8")], {}) == expected
    assert weights_digest([np.repeat(KERNEL, 2, axis=1)[:, ::2]], [COUNT], {}) == expected


def test_order_and_every_bit_count() -> None:
    other = KERNEL.copy()
    other[1, 1] = np.nextafter(other[1, 1], np.float32(9))
    digests = {
        weights_digest([KERNEL, COUNT], [], {}),
        weights_digest([COUNT, KERNEL], [], {}),
        weights_digest([other, COUNT], [], {}),
        weights_digest([KERNEL, COUNT], [COUNT], {}),
    }
    assert len(digests) == 4


def test_a_model_without_variables_has_a_digest() -> None:
    assert weights_digest([], [np.zeros((0, 3))], {}) == hashlib.sha256().hexdigest()

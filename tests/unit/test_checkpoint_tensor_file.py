import io
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.training.tensor_file import DTYPES, Array, DamagedFile, little_endian_bytes, read_tensors, write_tensors

MIXED: dict[str, Array] = {
    "weights/dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scalar": np.array(2.5, np.float64),
    "empty": np.zeros((0, 7), np.int64),
    "empty brain": np.zeros((3, 0), ml_dtypes.bfloat16),
    'odd "name"/ü\\\n/:0': np.array([True, False, True]),
    "brain": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
    "counts": np.array([2**32 - 1, 0], np.uint32),
    "big": np.array([2**63 - 1, -(2**63)], np.int64),
    "transposed": np.arange(6, dtype=np.float16).reshape(2, 3).T,
    "other end": np.array([1, 256], ">i4"),
}


def written(tensors: dict[str, Array]) -> bytes:
    out = io.BytesIO()
    found = write_tensors(out, tensors)
    assert found.size_bytes == len(out.getvalue())
    return out.getvalue()


def same(first: Array, second: Array) -> bool:
    return (
        first.shape == second.shape
        and first.dtype.newbyteorder("=") == second.dtype.newbyteorder("=")
        and bytes(little_endian_bytes(first)) == bytes(little_endian_bytes(second))
    )


def test_what_is_read_is_what_was_written() -> None:
    content = written(MIXED)
    tensors, found = read_tensors(io.BytesIO(content), len(content))
    assert tensors.keys() == MIXED.keys()
    assert all(same(tensors[name], MIXED[name]) for name in MIXED)
    assert all(tensor.flags.owndata and tensor.flags.writeable for tensor in tensors.values())
    out = io.BytesIO()
    assert write_tensors(out, MIXED) == found


@given(
    st.dictionaries(
        st.text(max_size=20).filter(lambda name: name != "__metadata__"),
        hnp.arrays(
            st.sampled_from([np.dtype(code) for code in ("f8", "f4", "f2", "u1", "i8", "?", "c8")]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=5,
    )
)
def test_any_names_and_shapes_come_back(tensors: dict[str, Array]) -> None:
    content = written(tensors)
    read, _ = read_tensors(io.BytesIO(content), len(content))
    assert read.keys() == tensors.keys()
    assert all(same(read[name], tensors[name]) for name in tensors)


def test_the_safetensors_library_reads_our_files(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(written(MIXED))
    with safetensors.safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(MIXED)
    numpy_only = {name: tensor for name, tensor in MIXED.items() if "brain" not in name}
    read = safetensors.numpy.load(written(numpy_only))
    assert all(np.array_equal(read[name], tensor) for name, tensor in numpy_only.items())


def test_we_read_the_files_of_the_safetensors_library() -> None:
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in MIXED.items() if tensor.ndim}
    content = safetensors.numpy.save(tensors, metadata={"format": "np"})
    read, _ = read_tensors(io.BytesIO(content), len(content))
    assert read.keys() == tensors.keys()
    assert all(same(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("code", sorted(DTYPES))
def test_every_dtype_has_the_library_s_name(code: str) -> None:
    content = safetensors.numpy.save({"x": np.zeros(2, DTYPES[code])})
    assert json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["x"]["dtype"] == code
    assert content == written({"x": np.zeros(2, DTYPES[code])})


def test_a_dtype_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(TypeError, match="tensor weights/text: dtype <U2 cannot be stored"):
        written({"weights/text": np.array(["ab"])})


def test_the_format_s_own_name_is_refused() -> None:
    with pytest.raises(ValueError, match="__metadata__"):
        written({"__metadata__": np.zeros(1)})


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        b'{"x":{"dtype":"F32","shape":[4000000000],"data_offsets":[0,16000000000]}}',
        b'{"x":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}',
        b'{"x":{"shape":[2]}}',
    ],
)
def test_a_wrong_header_is_refused(header: bytes) -> None:
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    with pytest.raises(DamagedFile):
        read_tensors(io.BytesIO(content), len(content))


def test_bytes_that_belong_to_no_tensor_are_refused() -> None:
    content = written(MIXED) + b"x"
    with pytest.raises(DamagedFile, match="in a file that holds"):
        read_tensors(io.BytesIO(content), len(content))


def test_a_file_that_ends_early_is_refused() -> None:
    content = written(MIXED)
    for length in (0, 7, 8, 100, len(content) - 1):
        with pytest.raises(DamagedFile):
            read_tensors(io.BytesIO(content[:length]), length)
        with pytest.raises(DamagedFile):
            read_tensors(io.BytesIO(content[:length]), len(content))

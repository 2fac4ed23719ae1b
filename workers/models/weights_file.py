"""The HDF5 file of a `.keras` archive: whether it is numbers and nothing else, and loading it into a model.

HDF5 can name other files (external links, external and virtual datasets), run plug-ins (filters), and declare arrays of
any size in a few bytes; all of that is refused before Keras opens the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from gradwire.errors import InvalidSpec, JobFailed
from gradwire.model_archive import WEIGHTS, refused

MAX_OBJECTS = 100_000
MAX_NAME_CHARS = 4096
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}
OPTIMIZER = "optimizer/"
"""What an archive keeps of the optimizer that trained it; the job has its own."""
SPARE_BYTES = 1 << 20


def load_weights(model: keras.Model, path: Path) -> None:
    """Sets the model's weights from the file.

    Raises:
        InvalidSpec: the file is no HDF5, or holds more than numbers for this model.
        JobFailed: `model_archive`, the weights are not this model's.
    """
    check_weights(path, 2 * model_bytes(model) + SPARE_BYTES)  # twice: it may have been saved in float64
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises many kinds, all of which blame the file
        reason = " ".join(str(error).split())[:500]
        raise JobFailed(f"model.archive: the weights do not fit the config: {reason}", code="model_archive") from error


def model_bytes(model: keras.Model) -> int:
    """What the model's variables take."""
    return sum(
        variable.shape.num_elements() * variable.value.dtype.size
        for variable in [*model.trainable_variables, *model.non_trainable_variables]
    )


def check_weights(path: Path, max_bytes: int) -> None:
    """Raises `InvalidSpec` unless the file holds groups and plain arrays of numbers alone, at most `max_bytes` of them
    but for the optimizer's.
    """
    try:
        with h5py.File(path, "r") as file:
            total = 0
            for name, dataset in _datasets(file):
                _check_dataset(name, dataset)
                total += 0 if name.startswith(OPTIMIZER) else int(dataset.size) * dataset.dtype.itemsize
                if total > max_bytes:
                    raise refused(
                        f"{WEIGHTS} declares more than {max_bytes:,} bytes of weights, too many for its model"
                    )
    except InvalidSpec:
        raise
    except Exception as error:  # h5py raises what the C library says, in many kinds
        raise refused(f"{WEIGHTS} is no HDF5 file that can be read: {str(error)[:300]}") from error


def _datasets(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Every dataset with its path; each object is reached by one hard link only, so that there is no circle."""
    waiting: list[tuple[str, Any]] = [("", file)]
    seen = {h5py.h5o.get_info(file.id).addr}
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            path = f"{prefix}{name}"
            if type(group.get(name, getlink=True)) is not h5py.HardLink:
                raise refused(f"{WEIGHTS}: {path[:200]!r} is a link to another place, which is not followed")
            child = group[name]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                raise refused(f"{WEIGHTS}: {path[:200]!r} has two names")
            seen.add(address)
            if len(seen) > MAX_OBJECTS or len(path) > MAX_NAME_CHARS:
                raise refused(f"{WEIGHTS} has more than {MAX_OBJECTS:,} objects, or names that are too long")
            if isinstance(child, h5py.Group):
                waiting.append((f"{path}/", child))
            else:
                yield path, child


def _check_dataset(name: str, dataset: Any) -> None:
    if not isinstance(dataset, h5py.Dataset):
        raise refused(f"{WEIGHTS}: {name[:200]!r} is no array")
    if dataset.external:
        raise refused(f"{WEIGHTS}: the array {name[:200]!r} reads another file")
    if dataset.is_virtual:
        raise refused(f"{WEIGHTS}: the array {name[:200]!r} is made of other files' arrays")
    is_bfloat16 = dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16"
    if dataset.dtype.kind not in "biuf" and not is_bfloat16:
        raise refused(f"{WEIGHTS}: the array {name[:200]!r} holds no numbers but {dataset.dtype}")
    created = dataset.id.get_create_plist()
    for index in range(created.get_nfilters()):
        number = created.get_filter(index)[0]
        if number not in FILTERS:
            raise refused(f"{WEIGHTS}: the array {name[:200]!r} needs the HDF5 filter {number}, which is not loaded")

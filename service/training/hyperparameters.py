"""A job's hyper-parameters in the form that TensorBoard's HParams plugin reads, without TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from google.protobuf import struct_pb2
from tensorflow.core.framework import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

from gradwire.spec.job import JobSpec

TAG = "_hparams_/session_start_info"
PLUGIN = "hparams"

# Field numbers of tensorboard/plugins/hparams: plugin_data.proto (HParamsPluginData) and hparams.proto
# (SessionStartInfo, whose first field is a map from names to google.protobuf.Value).
SESSION_START_INFO, HPARAMS, GROUP_NAME, START_TIME = 3, 1, 4, 5
LENGTH_DELIMITED, FIXED64 = 2, 1


def session_start(spec: JobSpec) -> summary_pb2.Summary:
    """The summary that tells TensorBoard what a run was started with."""
    info = b"".join(_entry(name, value) for name, value in flat(spec).items())
    info += _field(GROUP_NAME, spec.name.encode()) + _double(START_TIME, time.time())
    content = _field(SESSION_START_INFO, info)
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN, content=content)
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=0)])
    value = summary_pb2.Summary.Value(
        tag=TAG,
        metadata=summary_pb2.SummaryMetadata(plugin_data=plugin),
        tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape),
    )
    return summary_pb2.Summary(value=[value])


def flat(spec: JobSpec) -> dict[str, str | float | bool]:
    """What may differ between two trainings of one model, by dotted names as in the job file."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    chosen = {name: document[name] for name in ("optimizer", "training", "loss") if name in document}
    return dict(_leaves("", chosen))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, str | float | bool]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(f"{prefix}.{name}" if prefix else name, item)
    elif isinstance(value, bool | str):
        yield prefix, value
    elif isinstance(value, int | float):
        yield prefix, float(value)
    elif value is not None:
        yield prefix, json.dumps(value)


def _entry(name: str, value: str | float | bool) -> bytes:
    """One entry of a map, which is a message of key and value."""
    made = struct_pb2.Value()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, str):
        made.string_value = value
    else:
        made.number_value = value
    return _field(HPARAMS, _field(1, name.encode()) + _field(2, made.SerializeToString()))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _double(number: int, value: float) -> bytes:
    made = struct_pb2.Value(number_value=value).SerializeToString()  # its one field is a double: tag and eight bytes
    return _varint(number << 3 | FIXED64) + made[1:]


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])

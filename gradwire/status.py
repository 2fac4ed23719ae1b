"""Gradwire's errors as gRPC statuses, and back: one table for both ends of the wire.

A status carries the error's message, its `code` as trailing metadata `gradwire-code`, and the violations of a
specification as `google.rpc.BadRequest` in the status details.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from gradwire.errors import (
    AlreadyExists,
    Exhausted,
    GradwireError,
    InvalidSpec,
    NotFound,
    NotPossible,
    Unauthenticated,
    Unavailable,
    Unsupported,
    Violation,
)

CODE_KEY = "gradwire-code"
MAX_MESSAGE_CHARS = 1000
"""A status travels in HTTP/2 headers, which peers bound: the message is sent twice, once percent-encoded."""
MAX_SENT_VIOLATIONS = 40
MAX_DESCRIPTION_CHARS = 500

STATUS_CODES: Mapping[type[GradwireError], grpc.StatusCode] = MappingProxyType(
    {
        InvalidSpec: grpc.StatusCode.INVALID_ARGUMENT,
        NotFound: grpc.StatusCode.NOT_FOUND,
        AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        NotPossible: grpc.StatusCode.FAILED_PRECONDITION,
        Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        Unsupported: grpc.StatusCode.UNIMPLEMENTED,
        GradwireError: grpc.StatusCode.INTERNAL,
    }
)

_KINDS = {code: kind for kind, code in STATUS_CODES.items()} | {grpc.StatusCode.PERMISSION_DENIED: Unauthenticated}


class _Status(grpc.Status):
    """What `ServicerContext.abort_with_status` takes."""

    def __init__(
        self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        self.code = code
        self.details = details
        self.trailing_metadata = trailing_metadata


def to_grpc(error: GradwireError) -> grpc.Status:
    """The status that a server ends a call with: `context.abort_with_status(to_grpc(error))`."""
    code = next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), grpc.StatusCode.INTERNAL)
    status = Status(code=code.value[0], message=_cut(error.message, MAX_MESSAGE_CHARS))
    if isinstance(error, InvalidSpec):
        packed = AnyMessage()
        packed.Pack(BadRequest(field_violations=[_sent(one) for one in _bounded(error.violations)]))
        status.details.append(packed)
    details = rpc_status.to_status(status)
    return _Status(code, details.details, ((CODE_KEY, error.code), *details.trailing_metadata))


def from_grpc(error: grpc.RpcError, address: str) -> GradwireError:
    """What a failed call to the server at an address means."""
    if not isinstance(error, grpc.Call):
        return GradwireError(f"the call to {address} failed: {error}")
    status, message = error.code(), error.details() or ""
    code = next((value for key, value in error.trailing_metadata() or () if key == CODE_KEY), None)
    if isinstance(code, bytes):
        code = code.decode("ascii", "replace")
    kind = _KINDS.get(status, GradwireError)
    if kind is InvalidSpec:
        return InvalidSpec(_violations(error), message=message)
    if code is not None:
        return kind(message, code=code)
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"the server at {address} did not answer in time; look at its log", code="deadline_exceeded")
    if kind is Unavailable:
        return _unreachable(address, message)
    return kind(f"the server at {address} answered {status.name}: {message}")


def _unreachable(address: str, reason: str) -> Unavailable:
    hint = "start one with `gradwire serve`, or name another with --server or GRADWIRE_SERVER"
    if any(word in reason.lower() for word in ("handshake", "certificate", "ssl")):
        hint = "a server is there, but TLS failed: look at the certificates and their names"
    return Unavailable(f"no server answers at {address}; {hint}", details=reason)


def _violations(error: grpc.Call) -> list[Violation]:
    """The violations in a status; none if the status was not made by `to_grpc`."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return []
    found = []
    for detail in status.details if status else ():
        request = BadRequest()
        if detail.Is(BadRequest.DESCRIPTOR) and detail.Unpack(request):
            found += [Violation(one.field, one.description) for one in request.field_violations]
    return found


def _bounded(violations: list[Violation]) -> list[Violation]:
    more = len(violations) - MAX_SENT_VIOLATIONS
    return violations if more <= 0 else [*violations[:MAX_SENT_VIOLATIONS], Violation("", f"and {more} more")]


def _sent(violation: Violation) -> BadRequest.FieldViolation:
    description = _cut(violation.description, MAX_DESCRIPTION_CHARS)
    return BadRequest.FieldViolation(field=_cut(violation.field, MAX_DESCRIPTION_CHARS), description=description)


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"

"""What surrounds every call: counting it, turning its error into a status, asking for the token."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import structlog

from gradwire.errors import GradwireError, Unauthenticated
from gradwire.status import to_grpc
from service.metrics import Metrics

OPEN_METHODS = frozenset({"/grpc.health.v1.Health/Check"})
"""Answered without a token, so that whoever restarts services need not know it."""

Around = Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]

log = structlog.get_logger()


class Surrounding(grpc.ServerInterceptor):
    """Runs every call inside a context, which gets the method's full name and the call's context."""

    def __init__(self, around: Around) -> None:
        self._around = around

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the call, with the context around it."""
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        method, around = handler_call_details.method, self._around
        if handler.response_streaming:
            inner = handler.stream_stream or handler.unary_stream

            def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with around(method, context):
                    yield from inner(request, context)

            made = grpc.stream_stream_rpc_method_handler if handler.request_streaming else _unary_stream
            return made(stream, handler.request_deserializer, handler.response_serializer)
        inner = handler.stream_unary or handler.unary_unary

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            with around(method, context):
                return inner(request, context)

        make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else _unary_unary
        return make(unary, handler.request_deserializer, handler.response_serializer)


_unary_stream = grpc.unary_stream_rpc_method_handler
_unary_unary = grpc.unary_unary_rpc_method_handler


def counting(metrics: Metrics) -> Surrounding:
    """Counts calls by their status, and measures them."""

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            name = method.rsplit("/", 1)[-1]
            metrics.rpcs.labels(name, _code(context)).inc()
            metrics.rpc_duration.labels(name).observe(time.perf_counter() - started)

    return Surrounding(around)


def answering_errors() -> Surrounding:
    """Ends a call that raised with the error's status; what nobody foresaw is logged, and only its number told."""

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        try:
            yield
        except GradwireError as error:
            context.abort_with_status(to_grpc(error))
        except Exception:
            if not context.is_active():
                raise  # the client hung up in mid-stream; nobody reads an answer
            incident = secrets.token_hex(4)
            log.exception("call_failed", method=method, incident=incident)
            hint = f"the server failed to answer; its log has the reason under incident {incident}"
            context.abort_with_status(to_grpc(GradwireError(hint)))

    return Surrounding(around)


def asking_for_token(token: str) -> Surrounding:
    """Lets only those in who show the token, as `authorization: Bearer TOKEN`."""
    expected = f"Bearer {token}".encode()

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        if method not in OPEN_METHODS:
            metadata = {entry[0]: entry[1] for entry in context.invocation_metadata()}
            shown = metadata.get("authorization", "")
            shown_bytes = shown if isinstance(shown, bytes) else shown.encode()
            if not hmac.compare_digest(shown_bytes, expected):
                what = "this is not its token" if shown else "none was shown"
                raise Unauthenticated(f"the server asks for a token, and {what}; give it with --token-file")
        yield

    return Surrounding(around)


def _code(context: Any) -> str:
    if (code := context.code()) is not None:
        return str(code.name)
    return "OK" if context.is_active() else "CANCELLED"

"""The gRPC server around the servicer: threads, limits, security, health and reflection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from protos.gradwire.v1 import service_pb2
from protos.gradwire.v1.service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from service.address import Address, fault, is_taken
from service.api.interceptors import answering_errors, asking_for_token, counting
from service.api.transfer import MAX_TRANSFERS
from service.config import ServiceConfig, WrongSetting
from service.jobs.bulletin import MAX_WATCHERS
from service.metrics import Metrics

SHORT_CALLS = 16
MAX_CALLS = MAX_WATCHERS + MAX_TRANSFERS + SHORT_CALLS
"""A thread each; watchers and transfers have bounds of their own, so that some are always left for short calls."""
MAX_MESSAGE_BYTES = 4 << 20
"""Of a request: the largest is a specification with its Keras config."""
MAX_ANSWER_BYTES = 64 << 20

SERVICE = service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    # Two servers on one port would each get half of the calls.
    ("grpc.so_reuseport", 0),
    # A watched job may say nothing for minutes; clients may ping meanwhile.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Clients that went away without a word give their watch back.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class ApiServer:
    """Answers calls from `start` to `stop`."""

    def __init__(self, servicer: JobServiceServicer, config: ServiceConfig, metrics: Metrics) -> None:
        """Binds the address; raises `WrongSetting` if it cannot be had."""
        interceptors: list[grpc.ServerInterceptor] = [counting(metrics), answering_errors()]
        if config.token is not None:
            interceptors.append(asking_for_token(config.token))
        self._server = grpc.server(
            ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="api"),
            interceptors=interceptors,
            options=OPTIONS,
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        add_JobServiceServicer_to_server(servicer, self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.address = self._bind(config)

    def start(self) -> None:
        """Calls are accepted from here on."""
        self._server.start()
        for service in ("", SERVICE):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """Accepts no call more, and gives those under way some time."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait(grace_s + 5.0)

    def _bind(self, config: ServiceConfig) -> Address:
        require_free("--listen", config.listen)
        target = str(config.listen)
        try:
            if config.tls_cert is None or config.tls_key is None:
                port = self._server.add_insecure_port(target)
            else:
                pair = (config.tls_key.read_bytes(), config.tls_cert.read_bytes())
                port = self._server.add_secure_port(target, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise WrongSetting("--listen", f"{target}: {error}", exit_code=1) from error
        return Address(config.listen.host, port)


def require_free(option: str, address: Address) -> None:
    """Raises `WrongSetting` if one cannot listen there: exit code 1 if somebody does already, 2 if nobody could."""
    error = fault(address)
    if error is None:
        return
    if is_taken(error):
        raise WrongSetting(
            option, f"{address} is taken by another process; stop it, or choose another port with {option}", exit_code=1
        )
    raise WrongSetting(option, f"cannot listen on {address}: {error.strerror}; choose an address of this machine")

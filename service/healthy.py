"""`python -m service.healthy coordinator|node`: exits with 0 if this container's service, or its Ray node, answers.

For those who restart containers: it needs neither Ray nor a token.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from service.address import Address, parse_address

TIMEOUT_S = 3.0
RAYLETS = "ray/session_latest/sockets/raylet*"
"""Of the node in this container, below the folder of temporary files."""
DEFAULT_STATE = "/var/lib/gradwire"


def main(arguments: Sequence[str]) -> int:
    """Says on standard error what does not answer, and returns 1; 2 for wrong arguments."""
    match [*arguments]:
        case ["node"]:
            fault = _node_fault(Path("/tmp"))
        case ["coordinator", *rest] if len(rest) < 2:
            fault = _coordinator_fault(Path(rest[0] if rest else DEFAULT_STATE))
        case _:
            fault = "usage: python -m service.healthy node|coordinator [STATE FOLDER]"
            print(fault, file=sys.stderr)
            return 2
    if fault:
        print(f"gradwire: {fault}", file=sys.stderr)
    return 1 if fault else 0


def _node_fault(temporary: Path) -> str:
    raylets = sorted(temporary.glob(RAYLETS))
    if not raylets:
        return "there is no Ray node yet"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(TIMEOUT_S)
        try:
            probe.connect(str(raylets[-1]))
        except OSError as error:
            return f"the Ray node does not answer: {error}"
    return ""


def _coordinator_fault(state: Path) -> str:
    try:
        known = json.loads((state / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"no service has announced itself in {state}: {error}"
    for name in ("listen", "metrics"):
        if fault := _connection_fault(parse_address(known[name])):
            return f"{name} does not answer: {fault}"
    # Under TLS only those who have the certificate can ask further.
    return "" if known["uses_tls"] else _grpc_fault(parse_address(known["listen"]))


def _own(address: Address) -> Address:
    """Where this machine reaches what listens on all of its addresses."""
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)


def _connection_fault(address: Address) -> str:
    own = _own(address)
    try:
        socket.create_connection((own.host, own.port), TIMEOUT_S).close()
    except OSError as error:
        return f"{own}: {error}"
    return ""


def _grpc_fault(address: Address) -> str:
    import grpc  # noqa: PLC0415 - a node's check has no use for it
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # noqa: PLC0415

    with grpc.insecure_channel(str(_own(address)), options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"the service does not answer: {error.code().name}"
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if is_serving else "the service is stopping"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

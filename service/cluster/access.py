"""Whether a Ray is there, takes our token, and takes nobody without one: asked before Ray itself connects.

Ray retries a wrong address or token for minutes, in a call that no signal interrupts.
"""

from __future__ import annotations

from typing import Any

import grpc

from gradwire.errors import GradwireError, Unauthenticated, Unavailable

PROBE_TIMEOUT_S = 5.0
PROBE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""The cheapest call of Ray's GCS server; what is inside the messages does not matter here."""


def prove(address: str, token: str) -> None:
    """Returns if the GCS server at `address` (host:port) answers to the token, and only to it.

    Raises Unavailable, Unauthenticated, or GradwireError for a Ray that lets everybody in.
    """
    answer = _ask(address, token)
    if answer is grpc.StatusCode.UNAUTHENTICATED:
        raise Unauthenticated(
            f"Ray at {address} refuses the token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file, to the token "
            "that the cluster was started with"
        )
    if answer is not grpc.StatusCode.OK:
        raise Unavailable(
            f"no Ray answers at {address} ({answer.name}); look whether the cluster runs and can be reached from here, "
            "or give HOST:PORT of another one's GCS server"
        )
    if _ask(address, None) is not grpc.StatusCode.UNAUTHENTICATED:
        raise GradwireError(
            f"Ray at {address} takes connections without a token, and so runs anybody's code: start it with "
            "RAY_AUTH_MODE=token"
        )


def _ask(address: str, token: str | None) -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    # A proxy from the environment is for web pages.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        probe: Any = channel.unary_unary(PROBE)
        try:
            probe(b"", timeout=PROBE_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK

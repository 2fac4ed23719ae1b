"""Somebody else's Ray, which the service uses and leaves as it found it."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

import ray
from ray._private import worker
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader, Config

from gradwire.errors import GradwireError
from service import ray_token
from service.cluster import access, driver
from service.cluster.own_node import OwnNode


class GivenRay:
    """A connection to the cluster at `address`, HOST:PORT of its GCS server.

    A machine that runs none of its nodes gets one, without CPUs, for as long as the connection lasts.
    """

    def __init__(self, address: str, state: Path) -> None:
        self._address = address
        self._node = OwnNode(address, state)
        self._undo: dict[str, str | None] = {}

    def start(self) -> None:
        """Connects. Raises GradwireError where no token is set, nothing answers, or the token does not fit."""
        try:
            self._start()
        except GradwireError as error:
            raise type(error)(f"--ray {self._address}: {error.message}", details=error.details) from error

    def _start(self) -> None:
        if "://" in self._address or ":" not in self._address:
            raise GradwireError("give HOST:PORT of a cluster's GCS server, as in 10.0.0.5:6379")
        token = ray_token.given_token(os.environ)
        self._undo = ray_token.apply({ray_token.MODE_VARIABLE: "token"}, os.environ)
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        if not is_token_auth_enabled():
            raise GradwireError("this Ray cannot use a token; install Ray 2.60")
        access.prove(self._address, token)
        try:
            self._node.start()
            driver.connect(self._address)
        except Exception as error:
            raise GradwireError(
                f"Ray answers, but this machine cannot join it: {error}. It needs the cluster's versions of Python and "
                "Ray, and every node has to reach it"
            ) from error

    def logs(self) -> Path | None:
        """Somewhere in the cluster."""
        return None

    def fault(self) -> str:
        """Whether the node that was brought along has ended; somebody else looks after the others."""
        return self._node.fault()

    def clear_away(self) -> None:
        """Ends and removes the node that was brought along."""
        atexit.unregister(worker.shutdown)
        self._node.stop()

    def stop(self) -> None:
        """Disconnects; the cluster ends what this process started."""
        ray.shutdown()
        self._node.stop()
        ray_token.apply(self._undo, os.environ)

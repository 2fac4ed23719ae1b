"""`python -m service.cluster.node head|join HOST:PORT`: a node of a Ray cluster, in the foreground, as in a container.

Ray itself tries a wrong address or token for minutes; here the cluster is asked first, and what is wrong is told within
seconds. What follows on the command line are options of `ray start`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from gradwire.errors import GradwireError, Unavailable
from service import ray_token
from service.cluster import access
from service.cluster.local import OBJECT_STORE_BYTES, SYSTEM_CONFIG

USAGE = "usage: python -m service.cluster.node head|join HOST:PORT [OPTION OF ray start ...]"

COMMON = (
    "--block",
    "--disable-usage-stats",
    "--include-log-monitor=false",
    f"--object-store-memory={OBJECT_STORE_BYTES}",
)


def main(arguments: Sequence[str]) -> NoReturn:
    """Becomes `ray start`; where it cannot, the process exits: with 1 if nobody answers, 2 if a setting is wrong."""
    try:
        command = _command(arguments)
    except GradwireError as error:
        print(f"gradwire: {error.message}", file=sys.stderr)
        sys.exit(1 if isinstance(error, Unavailable) else 2)
    os.environ[ray_token.MODE_VARIABLE] = "token"
    os.execv(command[0], command)


def _command(arguments: Sequence[str]) -> list[str]:
    """The command line of `ray start`. Raises GradwireError without a token, or if the cluster does not take it."""
    match [*arguments]:
        case ["head", *options]:
            ray_token.given_token(os.environ)
            kind = ["--head", "--include-dashboard=false", f"--system-config={json.dumps(SYSTEM_CONFIG)}"]
        case ["join", address, *options]:
            access.prove(address, ray_token.given_token(os.environ))
            kind = [f"--address={address}"]
        case _:
            raise GradwireError(USAGE)
    return [str(Path(sys.executable).with_name("ray")), "start", *kind, *COMMON, *options]


if __name__ == "__main__":
    main(sys.argv[1:])

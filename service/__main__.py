"""`python -m service JSON`: the service's process, until SIGTERM or SIGINT. See `service.config` for the settings."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from functools import partial

from service import logs
from service.arenas import use_few_arenas
from service.config import WrongSetting, read_config
from service.readiness import Readiness
from service.signals import stop_on_signals


def main(arguments: list[str]) -> int:
    """Runs the service; returns the exit code: 0 stopped, 1 failed or a port is taken, 2 a setting is wrong."""
    # Ray's processes are forked off while RPCs are being served: gRPC's own handlers around a fork would wait for
    # each other.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    use_few_arenas()
    logs.configure(_log_format(arguments))
    logs.catch_others()
    stop = threading.Event()
    stop_on_signals(stop)
    try:
        if len(arguments) != 1:
            raise WrongSetting("settings", "the service takes one argument, a JSON object; use `gradwire serve`")
        config = read_config(arguments[0])
        readiness = Readiness(config.ready_fd)
        readiness.stage("starting the service")
        # Imported late: a wrong setting is told before gRPC's server and the rest are loaded.
        from service.coordinator import run  # noqa: PLC0415

        return run(config, readiness, stop, engine_is_up=partial(stop_on_signals, stop))
    except WrongSetting as error:
        print(f"gradwire: {error}", file=sys.stderr)
        if _wants_json(arguments):
            print(json.dumps({"error": {"code": "usage", "message": str(error)}}))
        return error.exit_code


def _log_format(arguments: list[str]) -> str:
    """Before the settings are read: what is wrong with them is told in a line of that kind."""
    with contextlib.suppress(ValueError, LookupError, AttributeError):
        found = json.loads(arguments[0]).get("log_format")
        return found if found in logs.FORMATS else logs.FORMATS[0]
    return logs.FORMATS[0]


def _wants_json(arguments: list[str]) -> bool:
    with contextlib.suppress(ValueError, LookupError, AttributeError):
        return json.loads(arguments[0]).get("json") is True
    return False


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code == 1:  # everything is closed, and Ray's library, which may have lost its Ray, would crash on its way out
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

"""A server for as long as a block runs, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from gradwire.errors import Unavailable


def _silent(_: str) -> None:
    return


@contextmanager
def local_server(
    *,
    workers: int = 1,
    allow_code: bool = False,
    trust: tuple[str, ...] = (),
    data_root: str | Path | None = None,
    on_stage: Callable[[str], None] = _silent,
) -> Iterator[str]:
    """Starts a server on this machine, on a free port, and gives its address; nothing of it stays after the block.

    Args:
        workers: how many workers are kept ready; jobs may have more.
        allow_code, trust, data_root: as the options of `gradwire serve`.
        on_stage: is told what the server is doing while it starts.

    Raises:
        Unavailable: the server is not installed here, did not start, or ended.
    """
    # With its own imports at hand only: most users of the client have a server elsewhere.
    from gradwire.cli.embedded import embedded_service  # noqa: PLC0415
    from gradwire.cli.serve import service_command  # noqa: PLC0415

    if find_spec("service") is None:
        raise Unavailable(
            "the server is not installed here: pip install 'gradwire[service,compute]', or name one with server="
        )
    settings = {
        "listen": "127.0.0.1:0",
        "metrics": "127.0.0.1:0",
        "ray": None,
        "data_root": str(Path(data_root).resolve()) if data_root is not None else None,
        "allow_code": allow_code,
        "trust": list(trust),
        "token_file": None,
        "tls_cert": None,
        "tls_key": None,
        "warm": workers + 1,
        "refill": True,
    }
    with embedded_service(service_command, settings, on_stage) as ready:
        yield ready.listen

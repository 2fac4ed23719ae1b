"""Opens a stream to the trainer's Flight server: with the job's token, and under TLS where the address says so."""

from __future__ import annotations

from typing import Any

from gradwire.assignment import EXCHANGE_NAME

PLAIN, ENCRYPTED = "grpc://", "grpc+tls://"


def dial(address: str, token: str, certificate: str) -> tuple[Any, Any, Any]:
    """The client, and the writer and reader of its one stream.

    Args:
        certificate: the trainer's, as PEM, the only one that is trusted; of no use to a plain address.

    Raises:
        pyarrow.ArrowException: nobody answers, or somebody else does.
    """
    # Workers on the trainer's node do without: Arrow starts a thread, and warm processes are to have one.
    from pyarrow import flight  # noqa: PLC0415

    from workers.exchange import frames  # noqa: PLC0415

    tls = {}
    if address.startswith(ENCRYPTED):
        tls = {"tls_root_certs": certificate.encode(), "override_hostname": EXCHANGE_NAME}
    client = flight.FlightClient(address, generic_options=frames.OPTIONS, **tls)
    headers = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"gradwire"), headers)
    writer.begin(frames.SCHEMA)
    return client, writer, reader

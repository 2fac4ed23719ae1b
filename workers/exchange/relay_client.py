"""How a worker comes to its node's relay: it starts one where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from gradwire.assignment import NOWHERE, Assignment
from gradwire.errors import JobFailed
from workers.exchange.client import SharedMemoryClient
from workers.exchange.messages import Hello
from workers.exchange.relay import RelayPlace
from workers.exchange.segment import job_folder

TRIES = 3
"""A relay may end, since its last worker has gone, in the moment in which another one comes."""
START_TIMEOUT_S = 30.0


def relay_place(assignment: Assignment) -> RelayPlace:
    """The relay of the node that a worker is on."""
    folder = job_folder(assignment.service_id, assignment.job_id, assignment.generation)
    return RelayPlace(
        name=f"{folder.name}-{assignment.node or NOWHERE}",
        trainer=assignment.exchange_address,
        token=assignment.token,
        certificate=assignment.exchange_certificate,
        job_id=assignment.job_id,
        generation=assignment.generation,
    )


def connect(assignment: Assignment, hello: Hello) -> SharedMemoryClient:
    """Connects to the relay.

    Raises:
        JobFailed: none can be started (code `trainer_gone`).
    """
    place = relay_place(assignment)
    for _ in range(TRIES):
        try:
            return SharedMemoryClient(Path(place.name), hello, place.socket)
        except JobFailed:
            start(place)
    return SharedMemoryClient(Path(place.name), hello, place.socket)


def start(place: RelayPlace) -> None:
    """Returns when a relay listens."""
    command = [sys.executable, "-m", "workers.exchange.relay"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The token goes where no list of processes shows it.
    subprocess.run(
        command, input=json.dumps(asdict(place)).encode(), env=environment, start_new_session=True,
        timeout=START_TIMEOUT_S, check=False,
    )  # fmt: skip

"""What a container's health check finds."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service import healthy


def test_a_node_is_healthy_while_its_raylet_listens(short_path: Path) -> None:
    assert healthy._node_fault(short_path) == "there is no Ray node yet"
    sockets = short_path / "ray" / "session_latest" / "sockets"
    sockets.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(sockets / "raylet.7"))
        assert "does not answer" in healthy._node_fault(short_path)
        raylet.listen()
        assert healthy._node_fault(short_path) == ""


def test_a_coordinator_is_healthy_while_it_serves(tmp_path: Path) -> None:
    assert "no service has announced itself" in healthy._coordinator_fault(tmp_path)
    server, servicer = grpc.server(ThreadPoolExecutor(1)), health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with socket.create_server(("127.0.0.1", 0)) as metrics:
        places = {"listen": f"0.0.0.0:{port}", "metrics": f"127.0.0.1:{metrics.getsockname()[1]}", "uses_tls": False}
        (tmp_path / "server.json").write_text(json.dumps(places))
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        assert healthy._coordinator_fault(tmp_path) == ""
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert healthy._coordinator_fault(tmp_path) == "the service is stopping"
        server.stop(None).wait()
        assert f"listen does not answer: 127.0.0.1:{port}" in healthy._coordinator_fault(tmp_path)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert healthy.main([]) == 2
    assert healthy.main(["coordinator", str(tmp_path)]) == 1
    assert f"no service has announced itself in {tmp_path}" in capsys.readouterr().err

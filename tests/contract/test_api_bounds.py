"""The API: bounds, tokens, health, metrics, TLS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]
from prometheus_client import generate_latest

from gradwire.client import Client
from gradwire.errors import Exhausted, NotFound, Unauthenticated
from protos.gradwire.v1 import service_pb2 as pb
from protos.gradwire.v1.service_pb2_grpc import JobServiceStub
from service.api.server import SERVICE
from service.jobs.bulletin import Bulletin
from service.jobs.states import JobState
from tests.contract.api_lab import Served, job_spec, serving, wait_until


def test_watchers_have_a_bound_and_give_their_place_back(tmp_path: Path) -> None:
    bulletin = Bulletin(max_watchers=1)
    with serving(tmp_path, bulletin) as served, Client(served.address) as client, served.stub() as stub:
        job = client.submit(job_spec())
        first = stub.WatchJob(pb.WatchJobRequest(id=job.id))
        assert next(first).event.cursor == 1
        with pytest.raises(Exhausted, match="1 watchers are connected"):
            next(client.watch(job))
        first.cancel()
        wait_until(lambda: bulletin._count == 0)
        assert next(client.watch(job)).cursor == 1


def test_a_service_that_stops_ends_its_watches(served: Served, client: Client) -> None:
    job = client.submit(job_spec())
    with served.stub() as stub:
        watching = stub.WatchJob(pb.WatchJobRequest(id=job.id))
        next(watching)
        served.bulletin.close()
        with pytest.raises(grpc.RpcError) as raised:
            for _ in watching:
                pass
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def calls_of_every_kind(job_id: str, shown: Any) -> list[Callable[[JobServiceStub], Any]]:
    """Unary and streaming in both directions, with metadata."""
    file = pb.DownloadArtifactRequest(artifact="x")
    return [
        lambda stub: stub.GetJob(pb.GetJobRequest(id=job_id), metadata=shown),
        lambda stub: next(stub.WatchJob(pb.WatchJobRequest(id=job_id), metadata=shown)),
        lambda stub: stub.UploadArtifact(iter([pb.UploadArtifactRequest(data=b"x")]), metadata=shown),
        lambda stub: next(stub.DownloadArtifact(file, metadata=shown)),
    ]


def test_every_call_needs_the_token_but_the_health_check(tmp_path: Path) -> None:
    with serving(tmp_path, token="s3cret") as served, Client(served.address, token="s3cret") as client:
        job = client.submit(job_spec())
        assert client.list() and client.cancel(job).id == job.id
        for shown in ((), (("authorization", "Bearer wrong"),), (("authorization", "s3cret"),)):
            for call in calls_of_every_kind(job.id, shown):
                with served.stub() as stub, pytest.raises(grpc.RpcError) as raised:
                    call(stub)
                assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with Client(served.address) as stranger, pytest.raises(Unauthenticated, match="none was shown"):
            stranger.list()
        with grpc.insecure_channel(served.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as raised:
                next(health.Watch(health_pb2.HealthCheckRequest()))
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_and_reflection(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(reflection.ServerReflectionInfo(iter([request])))
        names = {service.name for service in answer.list_services_response.service}
    assert {"gradwire.v1.JobService", "grpc.health.v1.Health"} <= names


def test_an_unforeseen_error_has_a_number_and_no_inside(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job_id: str) -> None:
        raise ZeroDivisionError("the secret inside")

    monkeypatch.setattr(served.store, "get", fail)
    with served.stub() as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GetJob(pb.GetJobRequest(id="ab"))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    message = raised.value.details() or ""
    assert "secret" not in message and message.split()[-1] in capsys.readouterr().out


def test_what_prometheus_sees(served: Served, client: Client) -> None:
    served.supervisor.engine_started()
    job = client.submit(job_spec())
    served.finish(job.id)
    list(client.watch(job))
    with pytest.raises(NotFound):
        client.get("ffff")
    wait_until(lambda: b'code="NOT_FOUND"' in generate_latest(served.metrics.registry))
    lines = generate_latest(served.metrics.registry).decode().splitlines()
    assert 'gradwire_jobs{state="SUCCEEDED"} 1.0' in lines and 'gradwire_jobs{state="PAUSED"} 0.0' in lines
    assert f'gradwire_job_step{{job_id="{job.id}"}} 3.0' in lines
    assert 'gradwire_rpc_total{code="NOT_FOUND",method="GetJob"} 1.0' in lines
    assert 'gradwire_rpc_total{code="OK",method="SubmitJob"} 1.0' in lines
    assert any(line.startswith("gradwire_build_info{") for line in lines)


def test_a_jobs_series_go_when_it_is_old(served: Served) -> None:
    series = served.metrics.jobs
    with Client(served.address) as client:
        record = served.store.get(client.submit(job_spec()).id)
    series.observe(replace(record, state=JobState.FAILED, finished_at_s=time.time() - 10_000))
    assert record.id not in generate_latest(served.metrics.registry).decode()


def test_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with serving(tmp_path / "state", tls_cert=cert, tls_key=key, token="s3cret") as served:
        port = served.api.address.port
        with Client(f"localhost:{port}", tls_cert=cert, token="s3cret") as client:
            assert client.list() == []

"""The API on a real gRPC server in this process, with the memory store and an engine without processes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]
from grpc_status import rpc_status
from prometheus_client import generate_latest

from gradwire import parse
from gradwire.client import Client
from gradwire.errors import AlreadyExists, Exhausted, InvalidSpec, NotFound, NotPossible, Unauthenticated, Unsupported
from gradwire.progress import Outcome, Snapshot
from gradwire.spec.job import FileRef, JobSpec
from gradwire.spec.wire import to_proto
from gradwire.storage import CHUNK_BYTES, Storage
from protos.gradwire.v1 import service_pb2 as pb
from protos.gradwire.v1.service_pb2_grpc import JobServiceStub
from service.address import Address
from service.api import transfer
from service.api.server import SERVICE, ApiServer
from service.api.servicer import Backend, Servicer
from service.api.submission import Submission
from service.api.transfer import Transfer
from service.config import ServiceConfig
from service.jobs.bulletin import Bulletin
from service.jobs.journal import Journal
from service.jobs.log import JobLog
from service.jobs.states import JobState
from service.launcher import Launcher
from service.metrics import Metrics
from service.store.memory import MemoryStore
from service.supervisor import Supervisor
from tests.unit.fake_engine import FakeEngine

WAIT_S = 20.0
MAX_UPLOAD_BYTES = 3 * CHUNK_BYTES

LAYERS = [
    {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "x"}},
    {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3, "name": "y"}},
]
MODEL = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": LAYERS}}


def job_spec(**changes: Any) -> JobSpec:
    document = {
        "name": "digits",
        "model": {"keras": json.dumps(MODEL)},
        "data": {"train": {"builtin": "digits"}, "inputs": "x", "labels": "y"},
        "loss": "sparse_categorical_crossentropy",
        "optimizer": "adam",
        "training": {"globalBatch": 32, "epochs": 1},
    }
    return parse({**document, **changes}, Path())


@dataclass
class Served:
    config: ServiceConfig
    store: MemoryStore
    storage: Storage
    engine: FakeEngine
    bulletin: Bulletin
    supervisor: Supervisor
    metrics: Metrics
    api: ApiServer

    @property
    def address(self) -> str:
        return str(self.api.address)

    @contextmanager
    def stub(self) -> Iterator[JobServiceStub]:
        with grpc.insecure_channel(self.address) as channel:
            yield JobServiceStub(channel)

    def finish(self, job_id: str) -> None:
        """Lets the job's trainer come up, take a step and end."""
        wait_until(lambda: bool(self.engine.trainers))
        trainer = self.engine.trainers[-1]
        assert trainer.assignment.job_id == job_id
        trainer.snapshot = Snapshot(is_running=True, step=3, total_steps=3, metrics={"loss": float("nan")})
        trainer.emit("progress", "step 3 of 3")
        trainer.address = "/dev/shm/x"
        trainer.end = Outcome(state="SUCCEEDED")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def serving(folder: Path, bulletin: Bulletin | None = None, **settings: Any) -> Iterator[Served]:
    anywhere = Address("127.0.0.1", 0)
    config = ServiceConfig(
        listen=anywhere, metrics=anywhere, state=folder, max_upload_bytes=MAX_UPLOAD_BYTES, **settings
    )  # fmt: skip
    store, storage, engine = MemoryStore(), Storage(str(folder / "storage")), FakeEngine()
    bulletin = bulletin or Bulletin()
    metrics = Metrics(store.counts)
    journal = Journal(store, JobLog(storage, folder), bulletin, wall=time.time, observe=metrics.jobs.observe)
    launcher = Launcher(engine=engine, store=store, storage=storage, service_id="5e41ce1d", cache_dir=folder)
    supervisor = Supervisor(
        store=store, journal=journal, engine=engine, launcher=launcher, clock=time.monotonic
    )  # fmt: skip
    submission = Submission(
        journal=journal, storage=storage, data_root=config.data_root, allow_code=config.allow_code, trust=config.trust,
        wall=time.time, submitted=supervisor.submitted,
    )  # fmt: skip
    backend = Backend(
        store=store, submission=submission, transfer=Transfer(storage, store, MAX_UPLOAD_BYTES), bulletin=bulletin,
        cancel=supervisor.cancel,
    )  # fmt: skip
    api = ApiServer(Servicer(backend), config, metrics)
    with ExitStack() as parts:
        supervisor.start()
        parts.callback(supervisor.stop)
        api.start()
        parts.callback(api.stop, 0.1)
        parts.callback(bulletin.close)
        yield Served(config, store, storage, engine, bulletin, supervisor, metrics, api)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address) as made:
        yield made


def test_a_submitted_job_can_be_seen_and_watched_to_its_end(served: Served, client: Client) -> None:
    spec = job_spec()
    job = client.submit(spec)
    assert job.state == pb.JOB_STATE_QUEUED and job.name == "digits" and job.spec == to_proto(spec)
    assert len(job.id) == 12 and len(job.spec_digest) == 64 and job.HasField("created_at")
    wait_until(lambda: client.get(job.id[:5]).state_reason == "the compute engine is starting")
    served.supervisor.engine_started()
    events: list[pb.JobEvent] = []
    watcher = threading.Thread(target=lambda: events.extend(client.watch(job.id)))
    watcher.start()
    served.finish(job.id)
    watcher.join(WAIT_S)
    assert not watcher.is_alive()
    done = client.get(job)
    assert [event.cursor for event in events] == list(range(1, done.cursor + 1))
    assert [event.state for event in events][-1] == done.state == pb.JOB_STATE_SUCCEEDED
    assert "step 3 of 3" in [event.message for event in events]
    assert (done.step, done.total_steps, done.finite, done.generation) == (3, 3, False, 1)
    assert done.HasField("started_at") and done.HasField("finished_at") and not done.HasField("error")


def test_a_watch_goes_on_from_a_cursor(served: Served, client: Client) -> None:
    job = client.submit(job_spec())
    client.cancel(job)
    everything = list(client.watch(job))
    assert [event.cursor for event in client.watch(job, cursor=1)] == [event.cursor for event in everything[1:]]
    assert list(client.watch(job, cursor=everything[-1].cursor)) == []


def test_one_request_makes_one_job(client: Client) -> None:
    first = client.submit(job_spec(), request_id="r")
    assert client.submit(job_spec(), request_id="r").id == first.id
    with pytest.raises(AlreadyExists, match=f"made job {first.id}"):
        client.submit(job_spec(name="other"), request_id="r")
    assert client.submit(job_spec()).id != first.id
    assert len(client.list()) == 2


def test_without_a_request_id_every_submission_is_a_job(served: Served) -> None:
    with served.stub() as stub:
        ids = {stub.SubmitJob(pb.SubmitJobRequest(spec=to_proto(job_spec()))).job.id for _ in range(2)}
    assert len(ids) == 2


def test_lists_come_in_pages_newest_first_and_without_specs(served: Served, client: Client) -> None:
    made = [client.submit(job_spec(name=f"job {index}")).id for index in range(5)]
    with served.stub() as stub:
        first = stub.ListJobs(pb.ListJobsRequest(page_size=2))
        assert [job.id for job in first.jobs] == [made[4], made[3]] and not first.jobs[0].HasField("spec")
        second = stub.ListJobs(pb.ListJobsRequest(page_size=2, page_token=first.next_page_token))
        last = stub.ListJobs(pb.ListJobsRequest(page_size=2, page_token=second.next_page_token))
        assert [job.id for job in [*second.jobs, *last.jobs]] == [made[2], made[1], made[0]]
        assert last.next_page_token == ""
        with pytest.raises(grpc.RpcError) as raised:
            stub.ListJobs(pb.ListJobsRequest(page_token="x"))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [job.id for job in client.list()] == made[::-1]


def test_all_violations_come_back_with_their_fields(served: Served) -> None:
    message = to_proto(job_spec(data={"train": {"npz": "server:x.npz"}, "inputs": "x", "labels": "y"}))
    message.optimizer.name = "no_such_optimizer"
    message.model.python.function = "a:b"
    message.model.python.source.artifact = "0" * 64
    with served.stub() as stub, pytest.raises(grpc.RpcError) as raised:
        stub.SubmitJob(pb.SubmitJobRequest(spec=message))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata: Any = raised.value.trailing_metadata()
    assert dict(metadata)["gradwire-code"] == "invalid_spec"
    status = rpc_status.from_call(raised.value)
    assert status is not None
    request = BadRequest()
    status.details[0].Unpack(request)
    fields = [violation.field for violation in request.field_violations]
    assert sorted(fields) == ["data.train.npz", "model.python", "model.python.source", "optimizer.name"]
    assert served.store.page(10, None) == []


def test_a_spec_may_name_what_was_uploaded(served: Served, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"rows")
    spec = job_spec(data={"train": {"npz": str(path)}, "inputs": "x", "labels": "y"})
    assert client.submit(spec).spec.data.train.npz.artifact == hashlib.sha256(b"rows").hexdigest()
    missing = FileRef(artifact="0" * 64, label="y.npz")
    source = spec.data.train.model_copy(update={"npz": missing})
    with pytest.raises(InvalidSpec, match=r"data.train.npz: y.npz \(SHA-256 0+\) is not on the server; upload it"):
        client.submit(spec.model_copy(update={"data": spec.data.model_copy(update={"train": source})}))


def test_paths_below_the_data_root_are_followed_but_not_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "secret.npz"
    root.mkdir()
    outside.write_bytes(b"")
    (root / "in.npz").write_bytes(b"")
    (root / "folder").mkdir()
    (root / "link.npz").symlink_to(root / "in.npz")
    (root / "out.npz").symlink_to(outside)
    (root / "circle.npz").symlink_to(root / "circle.npz")
    faults = {
        "out.npz": "leads out of the server's data root",
        "missing.npz": "is not there",
        "folder": "is no file",
        "circle.npz": "cannot be reached",
        "../secret.npz": "must be a path below the data root",
        "in.npz/x": "is not there",
    }
    with serving(tmp_path / "state", data_root=root) as served, Client(served.address) as client:
        for name in ("in.npz", "link.npz"):
            client.submit(job_spec(data={"train": {"npz": f"server:{name}"}, "inputs": "x", "labels": "y"}))
        for name, fault in faults.items():
            with pytest.raises(InvalidSpec) as raised:
                client.submit(job_spec(data={"train": {"npz": f"server:{name}"}, "inputs": "x", "labels": "y"}))
            assert raised.value.violations[0].field == "data.train.npz"
            assert fault in raised.value.violations[0].description


def test_cancelling(served: Served, client: Client) -> None:
    job = client.submit(job_spec())
    assert client.cancel(job.id[:6]).state == pb.JOB_STATE_CANCELLED
    assert client.cancel(job).state == pb.JOB_STATE_CANCELLED
    with pytest.raises(NotFound, match="no job has the id 'ffff'"):
        client.cancel("ffff")
    served.supervisor.engine_started()
    other = client.submit(job_spec())
    served.finish(other.id)
    assert list(client.watch(other))[-1].state == pb.JOB_STATE_SUCCEEDED
    with pytest.raises(NotPossible, match="is SUCCEEDED and cannot be cancelled"):
        client.cancel(other)


def test_verbs_that_are_not_there_say_so(served: Served, client: Client) -> None:
    for call in (client.pause, client.resume, client.delete):
        with pytest.raises(Unsupported, match="is not supported by this server"):
            call("ab12")
    with pytest.raises(Unsupported):
        client.scale("ab12", 3)
    with served.stub() as stub:
        for refused in (lambda: stub.CheckJob(pb.CheckJobRequest()), lambda: stub.ReplayStep(pb.ReplayStepRequest())):
            with pytest.raises(grpc.RpcError) as raised:
                refused()
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_what_was_uploaded_can_be_downloaded(client: Client, tmp_path: Path, size_bytes: int) -> None:
    content = bytes(index % 251 for index in range(size_bytes))
    source = tmp_path / "source"
    source.write_bytes(content)
    sha256 = client.upload(source)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert client.download(sha256, None, tmp_path / "target").read_bytes() == content


def test_damaged_and_oversized_uploads_leave_nothing(served: Served, tmp_path: Path) -> None:
    right = hashlib.sha256(b"ab").hexdigest()

    def requests(*chunks: tuple[bytes, str]) -> Iterator[pb.UploadArtifactRequest]:
        for data, sha256 in chunks:
            yield pb.UploadArtifactRequest(data=data, sha256=sha256)

    cases = [
        (requests((b"a", ""), (b"x", right)), grpc.StatusCode.INVALID_ARGUMENT),
        (requests((b"a", right), (b"b", "")), grpc.StatusCode.INVALID_ARGUMENT),
        (requests(), grpc.StatusCode.INVALID_ARGUMENT),
        (requests((b"a" * (CHUNK_BYTES + 1), "")), grpc.StatusCode.INVALID_ARGUMENT),
        (requests(*[(b"a" * CHUNK_BYTES, "")] * 4), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ]
    with served.stub() as stub:
        for stream, code in cases:
            with pytest.raises(grpc.RpcError) as raised:
                stub.UploadArtifact(stream)
            assert raised.value.code() is code
        assert served.storage.names("artifacts") == served.storage.names("uploads") == []
        assert stub.UploadArtifact(requests((b"a", ""), (b"b", right))).sha256 == right


def test_a_file_that_is_there_is_not_sent_again(served: Served) -> None:
    sha256 = hashlib.sha256(b"ab").hexdigest()
    served.storage.write(f"artifacts/{sha256}", b"ab")
    with served.stub() as stub:
        answer = stub.UploadArtifact(iter([pb.UploadArtifactRequest(sha256=sha256)]))
    assert (answer.sha256, answer.size_bytes) == (sha256, 2.0)


def test_files_of_a_job(served: Served, client: Client, tmp_path: Path) -> None:
    job = client.submit(job_spec())
    served.storage.write(f"jobs/{job.id}/export/model.keras", b"keras")
    assert client.download(job, "export/keras", tmp_path / "m.keras").read_bytes() == b"keras"
    assert " QUEUED state queued\n" in client.download(job.id[:6], "log", tmp_path / "log").read_text()
    with pytest.raises(NotFound, match="has no export/saved_model; it is QUEUED"):
        client.download(job, "export/saved_model", tmp_path / "x")
    with pytest.raises(InvalidSpec, match="must be one of log, export/keras"):
        client.download(job, "../../../etc/passwd", tmp_path / "x")
    for wrong in ("f" * 64, "../jobs"):
        with pytest.raises(NotFound, match="no artifact"):
            client.download(wrong, None, tmp_path / "x")


def test_transfers_have_a_bound(served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_TRANSFERS", 0)
    backend = Transfer(served.storage, served.store, 1)
    with pytest.raises(Exhausted, match="the server takes no more"):
        backend.upload([pb.UploadArtifactRequest(data=b"x")])


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
    assert f'gradwire_job_step{{job="{job.id}"}} 3.0' in lines
    assert 'gradwire_rpc_total{code="NOT_FOUND",method="GetJob"} 1.0' in lines
    assert 'gradwire_rpc_total{code="OK",method="SubmitJob"} 1.0' in lines
    assert any(line.startswith("gradwire_build_info{") for line in lines)


def test_a_jobs_series_go_when_it_is_old(served: Served) -> None:
    series = served.metrics.jobs
    with Client(served.address) as client:
        record = served.store.get(client.submit(job_spec()).id)
    series.observe(replace(record, state=JobState.FAILED, finished_at_s=time.time() - 10_000))
    assert record.id not in generate_latest(served.metrics.registry).decode()


def test_tls(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with serving(tmp_path / "state", tls_cert=cert, tls_key=key, token="s3cret") as served:
        port = served.api.address.port
        with Client(f"localhost:{port}", tls_cert=cert, token="s3cret") as client:
            assert client.list() == []


def make_certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key

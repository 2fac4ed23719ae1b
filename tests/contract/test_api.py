"""The API: jobs, files and their errors."""

from __future__ import annotations

import hashlib
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status

from gradwire.client import Client
from gradwire.errors import AlreadyExists, Exhausted, InvalidSpec, NotFound, NotPossible, Unsupported
from gradwire.progress import Best
from gradwire.spec.job import FileRef
from gradwire.spec.wire import to_proto
from gradwire.storage import CHUNK_BYTES
from protos.gradwire.v1 import service_pb2 as pb
from service.api import transfer
from service.api.transfer import Transfer
from tests.contract.api_lab import WAIT_S, Served, job_spec, serving, wait_until


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


def test_pausing_and_resuming(served: Served, client: Client) -> None:
    job = client.submit(job_spec())
    paused = client.pause(job.id[:6])
    assert (paused.state, paused.state_reason) == (pb.JOB_STATE_PAUSED, "paused before its first step")
    assert client.pause(job).state == pb.JOB_STATE_PAUSED
    served.supervisor.engine_started()
    assert client.resume(job).state == pb.JOB_STATE_QUEUED
    client.resume(job)
    served.finish(job.id)
    assert list(client.watch(job))[-1].state == pb.JOB_STATE_SUCCEEDED
    for call, done in ((client.pause, "paused"), (client.resume, "resumed")):
        with pytest.raises(NotPossible, match=f"is SUCCEEDED and cannot be {done}"):
            call(job)
        with pytest.raises(NotFound):
            call("ffff")


def test_scaling(client: Client) -> None:
    job = client.submit(job_spec(resources={"workers": 3, "minWorkers": 2}))
    assert job.wanted_workers == 3
    answer = client.scale(job, 8)
    assert (answer.usable_workers, answer.job.wanted_workers) == (4, 8)
    assert client.get(job).wanted_workers == 8
    assert client.scale(job, 2).usable_workers == 2
    for workers, why in ((0, "must be at least 1, not 0; .*gradwire pause"), (1, "must be at least 2, the job's min")):
        with pytest.raises(InvalidSpec, match=why) as raised:
            client.scale(job, workers)
        assert [violation.field for violation in raised.value.violations] == ["workers"]
    client.cancel(job)
    with pytest.raises(NotPossible, match="is CANCELLED and cannot be scaled"):
        client.scale(job, 3)


def test_verbs_that_are_not_there_say_so(served: Served, client: Client) -> None:
    with pytest.raises(Unsupported, match="is not supported by this server"):
        client.delete("ab12")
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
    with pytest.raises(NotFound, match="nothing for TensorBoard yet"):
        client.download(job, "tensorboard", tmp_path / "x")
    for run in ("train", "validation"):
        served.storage.write(f"jobs/{job.id}/tensorboard/{run}/events.out.tfevents.1", run.encode())
    with tarfile.open(client.download(job, "tensorboard", tmp_path / "t.tar")) as archive:
        assert archive.getnames() == [f"tensorboard/{run}/events.out.tfevents.1" for run in ("train", "validation")]
    with pytest.raises(InvalidSpec, match="must be one of log, export/keras"):
        client.download(job, "../../../etc/passwd", tmp_path / "x")
    for wrong in ("f" * 64, "../jobs"):
        with pytest.raises(NotFound, match="no artifact"):
            client.download(wrong, None, tmp_path / "x")


def test_the_best_evaluation_s_weights_are_the_job_s_own_where_no_others_lie(
    served: Served, client: Client, tmp_path: Path
) -> None:
    served.supervisor.engine_started()
    job = client.submit(job_spec())
    served.finish(job.id, Best(2, "loss", 0.5, ("keras",)))
    assert list(client.watch(job))[-1].state == pb.JOB_STATE_SUCCEEDED
    served.storage.write(f"jobs/{job.id}/export/model.keras", b"last")
    assert client.get(job.id).best == pb.BestEvaluation(step=2, metric="loss", value=0.5, exports=["keras"])
    assert client.download(job, "export/best/keras", tmp_path / "best").read_bytes() == b"last"
    served.storage.write(f"jobs/{job.id}/export/best/model.keras", b"best")
    assert client.download(job, "export/best/keras", tmp_path / "best").read_bytes() == b"best"
    served.storage.write(f"jobs/{job.id}/export/saved_model.tar", b"last")
    with pytest.raises(NotFound, match="has no export/best/saved_model"):
        client.download(job, "export/best/saved_model", tmp_path / "x")


def test_transfers_have_a_bound(served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_TRANSFERS", 0)
    backend = Transfer(served.storage, served.store, 1)
    with pytest.raises(Exhausted, match="the server takes no more"):
        backend.upload([pb.UploadArtifactRequest(data=b"x")])

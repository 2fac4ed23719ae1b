"""The client against a server on a real socket: files, retries, lost connections, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradwire import Client, parse
from gradwire.errors import (
    AlreadyExists,
    GradwireError,
    InvalidSpec,
    NotFound,
    Unavailable,
    Unsupported,
    Violation,
)
from protos.gradwire.v1 import service_pb2 as pb
from tests.contract.job_service_double import (
    CHUNK_BYTES,
    JobServiceDouble,
    Running,
    document,
    sha256,
    start,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def running() -> Iterator[Running]:
    server = start(JobServiceDouble())
    yield server
    server.stop()


@pytest.fixture
def service(running: Running) -> JobServiceDouble:
    return running.service


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.address, timeout_s=10, reconnect_s=10) as made:
        yield made


# Submission and files


def test_a_job_file_is_submitted_with_its_files(client: Client, service: JobServiceDouble, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "net.py").write_text("def build(): ...\n")
    (tmp_path / "rows.npz").write_bytes(b"rows")
    (tmp_path / "job.yaml").write_text(
        "name: files\n"
        "model: {python: {function: 'net:build', source: net}}\n"
        "data: {train: {npz: rows.npz}, inputs: image, labels: digit}\n"
        "loss: mse\noptimizer: sgd\ntraining: {globalBatch: 32, epochs: 1}\n"
    )
    job = client.submit(tmp_path / "job.yaml")
    assert job.state == pb.JOB_STATE_QUEUED
    assert job.spec.data.train.npz.artifact == sha256(b"rows")
    assert job.spec.data.train.npz.label == "rows.npz"
    assert service.artifacts[job.spec.model.python.source.artifact].startswith(b"PK")
    before = len(service.artifacts)
    again = client.submit(str(tmp_path / "job.yaml"))
    assert again.id != job.id
    assert again.spec == job.spec
    assert len(service.artifacts) == before


def test_a_file_travels_in_chunks_with_its_checksum(client: Client, service: JobServiceDouble, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 5 + b"tail"
    (tmp_path / "large").write_bytes(content)
    assert client.upload(tmp_path / "large") == sha256(content)
    assert service.artifacts == {sha256(content): content}
    (requests,) = service.uploads
    assert [len(request.data) for request in requests] == [CHUNK_BYTES] * 5 + [4]
    assert [bool(request.sha256) for request in requests] == [True, False, False, False, False, True]


def test_a_file_that_the_server_has_is_not_sent_again(
    client: Client, service: JobServiceDouble, tmp_path: Path
) -> None:
    content = bytes(40 * CHUNK_BYTES)
    service.artifacts[sha256(content)] = content
    (tmp_path / "large").write_bytes(content)
    assert client.upload(tmp_path / "large") == sha256(content)
    (requests,) = service.uploads
    assert len(requests) == 1


def test_an_empty_file_can_be_uploaded(client: Client, service: JobServiceDouble, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert client.upload(tmp_path / "empty") == sha256(b"")
    assert service.artifacts == {sha256(b""): b""}


def test_a_broken_upload_is_made_again(client: Client, service: JobServiceDouble, tmp_path: Path) -> None:
    content = bytes(3 * CHUNK_BYTES)
    (tmp_path / "large").write_bytes(content)
    service.faults.broken_uploads = 1
    assert client.upload(tmp_path / "large") == sha256(content)
    assert service.artifacts == {sha256(content): content}
    assert len(service.uploads) == 2


def test_nothing_is_sent_unless_every_file_is_there(client: Client, service: JobServiceDouble, tmp_path: Path) -> None:
    (tmp_path / "rows.npz").write_bytes(b"rows")
    (tmp_path / "net.keras").write_bytes(b"net")
    fields = document(
        model={"archive": str(tmp_path / "net.keras")},
        data={"train": {"npz": str(tmp_path / "rows.npz")}, "inputs": "image", "labels": "digit"},
    )
    spec = parse(fields)
    (tmp_path / "net.keras").unlink()
    with pytest.raises(InvalidSpec) as caught:
        client.submit(spec)
    assert [violation.field for violation in caught.value.violations] == ["model.archive"]
    assert service.uploads == []
    assert service.jobs == {}


def test_a_lost_reply_makes_no_second_job(client: Client, service: JobServiceDouble) -> None:
    service.faults.lost_replies = 2
    job = client.submit(document())
    assert list(service.jobs) == [job.id]
    assert len(service.request_ids) == 3
    assert len(set(service.request_ids)) == 1


def test_a_request_id_names_one_submission(client: Client, service: JobServiceDouble) -> None:
    first = client.submit(document(), request_id="mine")
    assert client.submit(document(), "mine") == first
    with pytest.raises(AlreadyExists) as caught:
        client.submit(document(name="other"), "mine")
    assert caught.value.code == "already_exists"
    assert client.submit(document()).id != client.submit(document()).id
    assert len(service.jobs) == 3


def test_the_servers_violations_arrive_with_their_fields(client: Client, service: JobServiceDouble) -> None:
    found = [Violation("model.keras.config.layers[3]", "Lambda runs code"), Violation("", "ü" * 100)]
    service.faults.submit_error = InvalidSpec(found)
    with pytest.raises(InvalidSpec) as caught:
        client.submit(document())
    assert caught.value.violations == found
    assert "layers[3]: Lambda runs code" in caught.value.message


def test_very_many_violations_are_bounded_and_arrive(client: Client, service: JobServiceDouble) -> None:
    service.faults.submit_error = InvalidSpec([Violation(f"field{index}", "ü" * 900) for index in range(200)])
    with pytest.raises(InvalidSpec) as caught:
        client.submit(document())
    assert len(caught.value.violations) == 41
    assert caught.value.violations[40] == Violation("", "and 160 more")


def test_an_error_keeps_its_code(client: Client, service: JobServiceDouble) -> None:
    service.faults.submit_error = GradwireError("the disk is full", code="disk_full")
    with pytest.raises(GradwireError, match="the disk is full") as caught:
        client.submit(document())
    assert type(caught.value) is GradwireError
    assert caught.value.code == "disk_full"


def test_a_specification_above_the_limit_is_refused_here(client: Client, service: JobServiceDouble) -> None:
    large = {"class_name": "Sequential", "config": {"text": "x" * (4 << 20)}}
    with pytest.raises(InvalidSpec, match=r"takes 4.0 MiB"):
        client.submit(document(model={"keras": large}))
    assert service.request_ids == []


# Watching


def steps(events: Iterator[pb.JobEvent]) -> list[int]:
    return [event.cursor for event in events]


def test_a_watch_sends_every_event_and_ends_with_the_job(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j", events=5, state=pb.JOB_STATE_SUCCEEDED)
    assert steps(client.watch("j")) == [1, 2, 3, 4, 5]
    assert steps(client.watch("j", cursor=3)) == [4, 5]
    assert steps(client.watch("j", cursor=5)) == []


def test_a_lost_watch_goes_on_from_its_cursor(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j", events=6, state=pb.JOB_STATE_SUCCEEDED)
    service.faults.watch_events = [2, 0, 0, 3]
    assert steps(client.watch("j")) == [1, 2, 3, 4, 5, 6]
    assert service.cursors == [0, 2, 2, 2, 5]


def test_an_event_that_is_sent_twice_is_seen_once(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j", events=6, state=pb.JOB_STATE_SUCCEEDED)
    service.faults.watch_events = [4]
    service.faults.repeated_events = 2
    assert steps(client.watch("j")) == [1, 2, 3, 4, 5, 6]


def test_a_stream_that_ends_before_its_job_is_opened_again(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j", events=4, state=pb.JOB_STATE_FAILED)
    service.faults.quiet_watch_ends = 2
    assert steps(client.watch("j")) == [1, 2, 3, 4]
    assert service.cursors == [0, 1, 2]


def test_a_watch_survives_a_restart_of_the_server(client: Client, running: Running) -> None:
    service = running.service
    service.add_job("j", events=2)
    events = client.watch("j")
    assert [next(events).cursor, next(events).cursor] == [1, 2]
    running.stop()
    service.add_event("j")

    def restart() -> None:
        service.add_event("j", pb.JOB_STATE_SUCCEEDED)
        running.server = start(service, running.port).server

    timer = threading.Timer(0.5, restart)
    timer.start()
    assert steps(events) == [3, 4]
    timer.join()


def test_a_watch_gives_up_on_a_server_that_stays_away(running: Running) -> None:
    running.service.add_job("j", events=1)
    with Client(running.address, reconnect_s=0.3) as client:
        events = client.watch("j")
        assert next(events).cursor == 1
        running.stop()
        began = time.monotonic()
        with pytest.raises(Unavailable, match=running.address):
            next(events)
        assert time.monotonic() - began < 10


def test_a_watch_that_is_dropped_frees_the_server(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j", events=1)
    for _ in range(20):  # the double serves eight calls at a time
        events = client.watch("j")
        assert next(events).cursor == 1
        events.close()  # type: ignore[attr-defined]
    assert client.get("j").id == "j"


def test_watching_takes_a_job_and_refuses_an_unknown_one(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j", events=1, state=pb.JOB_STATE_CANCELLED)
    assert steps(client.watch(client.get("j"))) == [1]
    with pytest.raises(NotFound, match="there is no job k"):
        next(client.watch("k"))


# The other verbs


def test_all_pages_of_jobs_are_listed(client: Client, service: JobServiceDouble) -> None:
    for number in range(250):
        service.add_job(f"job{number}")
    assert [job.id for job in client.list()] == [f"job{number}" for number in reversed(range(250))]


def test_the_short_verbs(client: Client, service: JobServiceDouble) -> None:
    service.add_job("j")
    assert client.resume("j").id == "j"
    scaled = client.scale("j", 3)
    assert (scaled.job.id, scaled.job.wanted_workers, scaled.usable_workers) == ("j", 3, 2)
    for workers in (-1, 2**40):
        with pytest.raises(InvalidSpec, match="workers: must be from 1 to"):
            client.scale("j", workers)
    assert client.cancel("j").state == pb.JOB_STATE_CANCELLED
    client.delete("j")
    with pytest.raises(NotFound):
        client.get("j")
    with pytest.raises(Unsupported, match="does not pause"):
        client.pause("j")


@pytest.mark.parametrize("size_bytes", [0, 7, 3 * CHUNK_BYTES + 1])
def test_a_download_has_the_bytes_of_the_server(
    client: Client, service: JobServiceDouble, tmp_path: Path, size_bytes: int
) -> None:
    content = bytes(index % 251 for index in range(size_bytes))
    service.files["j", "export/keras"] = service.artifacts[sha256(content)] = content
    for job, name in (("j", "export/keras"), (sha256(content), None)):
        target = tmp_path / "new" / "model.keras"
        assert client.download(job, name, target) == target
        assert target.read_bytes() == content
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.keras"]


def test_a_damaged_download_leaves_the_old_file(client: Client, service: JobServiceDouble, tmp_path: Path) -> None:
    service.files["j", "log"] = bytes(2 * CHUNK_BYTES)
    (tmp_path / "log").write_text("old")
    service.faults.damaged_downloads = 1
    with pytest.raises(GradwireError) as caught:
        client.download("j", "log", tmp_path / "log")
    assert caught.value.code == "checksum_mismatch"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log": "old"}


def test_a_download_of_nothing_leaves_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.download("j", "log", tmp_path / "log")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError, match="name the file"):
        client.download("j", "log", tmp_path)

"""Exports on disk: what is extracted, what is replaced, what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gradwire.cli.export import export_model
from gradwire.cli.main import main
from gradwire.errors import GradwireError
from protos.gradwire.v1 import service_pb2 as pb
from tests.unit.cli_double import JOB_ID, ClientDouble, make_job, saved_model_tar


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ClientDouble:
    monkeypatch.setattr(ClientDouble, "script", {})
    monkeypatch.setattr(ClientDouble, "calls", [])
    return ClientDouble("127.0.0.1:1")


def test_the_keras_file_has_its_name(client: ClientDouble, tmp_path: Path) -> None:
    path = export_model(client, JOB_ID, tmp_path / "new" / "folder", "keras")  # type: ignore[arg-type]
    assert path == tmp_path / "new" / "folder" / "model.keras"
    assert path.read_bytes() == b"a keras file"


def test_a_saved_model_is_a_folder_and_nothing_else_stays(client: ClientDouble, tmp_path: Path) -> None:
    path = export_model(client, JOB_ID, tmp_path, "saved_model")  # type: ignore[arg-type]
    assert (path / "variables" / "0").read_bytes() == b"v"
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved_model"]


def test_an_older_saved_model_is_replaced_whole(client: ClientDouble, tmp_path: Path) -> None:
    old = tmp_path / "saved_model"
    old.mkdir()
    (old / "saved_model.pb").write_bytes(b"old")
    (old / "stale").write_bytes(b"old")
    path = export_model(client, JOB_ID, tmp_path, "saved_model")  # type: ignore[arg-type]
    assert (path / "saved_model.pb").read_bytes() == b"graph"
    assert not (path / "stale").exists()


def test_a_folder_of_the_user_s_is_never_replaced(client: ClientDouble, tmp_path: Path) -> None:
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(FileExistsError, match="no SavedModel"):
        export_model(client, JOB_ID, tmp_path, "saved_model")  # type: ignore[arg-type]
    assert (tmp_path / "saved_model" / "thesis.txt").exists()


def test_curves_for_tensorboard_replace_older_ones_and_no_other_folder(client: ClientDouble, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("tensorboard/train/events"))
    client.script["archive"] = stream.getvalue()
    for _ in range(2):
        path = export_model(client, JOB_ID, tmp_path, "tensorboard")  # type: ignore[arg-type]
    assert path == tmp_path / "tensorboard" and (path / "train" / "events").exists()
    assert client.calls[-1] == ("download", "tensorboard")
    (tmp_path / "other" / "tensorboard").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="no folder of TensorBoard's"):
        export_model(client, JOB_ID, tmp_path / "other", "tensorboard")  # type: ignore[arg-type]


def exported(client: ClientDouble, job: pb.Job, *options: str) -> Result:
    client.script["job"] = job
    return CliRunner().invoke(main, ["export", JOB_ID[:4], "--to", "out", *options])


def test_the_best_evaluation_s_weights_are_asked_for_by_their_own_name(
    client: ClientDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradwire.client.Client", ClientDouble)
    monkeypatch.chdir(tmp_path)
    job = make_job()
    job.best.CopyFrom(pb.BestEvaluation(step=12, metric="loss", value=0.5, exports=["keras"]))
    assert exported(client, job, "--best", "--format", "keras").exit_code == 0
    assert ("download", "export/best/keras") in client.calls
    lacking = exported(client, job, "--best", "--format", "saved_model")
    assert lacking.exit_code == 2 and "has no export saved_model" in lacking.stderr
    assert exported(client, job, "--best", "--format", "tensorboard").exit_code == 2
    job.ClearField("best")
    job.finished_at.FromSeconds(1)
    never = exported(client, job, "--best")
    assert never.exit_code == 2 and "was never evaluated" in never.stderr


def link_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("saved_model/link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    return stream.getvalue()


@pytest.mark.parametrize(
    "archive",
    [saved_model_tar(**{"../outside": b"x"}), link_tar(), b"no tar at all" * 100, saved_model_tar()[:700]],
    ids=["path out", "link out", "no tar", "cut off"],
)
def test_a_damaged_or_hostile_archive_leaves_what_was_there(
    client: ClientDouble, tmp_path: Path, archive: bytes
) -> None:
    old = tmp_path / "to" / "saved_model"
    old.mkdir(parents=True)
    (old / "saved_model.pb").write_bytes(b"old")
    client.script["archive"] = archive
    with pytest.raises(GradwireError) as caught:
        export_model(client, JOB_ID, tmp_path / "to", "saved_model")  # type: ignore[arg-type]
    assert caught.value.code == "bad_export"
    assert (old / "saved_model.pb").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["saved_model", "saved_model.pb", "to"]

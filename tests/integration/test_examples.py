"""Every example trains: its code, its data and its job file fit each other on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

from examples.__main__ import FLOORS, FOLDER, shortfalls
from gradwire.packing import pack
from gradwire.spec.check import violations
from gradwire.spec.file import load
from gradwire.spec.file_refs import with_file_refs
from gradwire.spec.job import FileRef, JobSpec
from gradwire.storage import Storage
from tests.integration.lab import run

pytestmark = pytest.mark.integration

TRAINED_WHOLE = ("heads", "numbers")
"""These take seconds, and have between them most kinds of connection, and a table whose gradient is sparse and dense.
The others are trained for two steps here, and by `make examples` to their ends."""


def stored(spec: JobSpec, folder: Path) -> JobSpec:
    """The specification with its source folder in the lab's storage."""

    def upload(field: str, file: FileRef) -> FileRef:
        assert file.path is not None
        pack(Path(file.path), folder / "source.zip")
        content = (folder / "source.zip").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        Storage(str(folder / "storage")).write(f"artifacts/{digest}", content)
        return FileRef(artifact=digest, label=field)

    return with_file_refs(spec, upload)


@pytest.mark.parametrize("name", sorted({*FLOORS} - {"digits"}))  # the demo's, which has tests of its own
def test_an_example_trains(name: str, tmp_path: Path) -> None:
    if name == "movielens" and importlib.util.find_spec("recbole") is None:
        pytest.skip("MovieLens-100K comes with recbole, which the lock file leaves out: it wants PyTorch")
    spec = stored(load(FOLDER / name / "job.yaml"), tmp_path)
    assert violations(spec, allow_code=True) == []
    if name not in TRAINED_WHOLE:
        short = spec.training.model_copy(update={"epochs": None, "steps": 2, "evaluate_every": 0})
        spec = spec.model_copy(update={"training": short})
    result = run(spec, tmp_path, 1, exports=True)
    assert result.outcome.state == "SUCCEEDED", (
        result.outcome.error,
        result.outcome.error and result.outcome.error.details,
    )
    assert result.progress.snapshot.exports == ("keras", "saved_model")
    faults = shortfalls(name, result.progress.snapshot.eval_metrics)
    if name in TRAINED_WHOLE:
        assert faults == []
    else:
        assert faults, "two steps are no training, and it must show"


def test_every_example_is_run() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/job.yaml")} == set(FLOORS)

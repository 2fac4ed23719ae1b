"""The files in deploy/ agree with the rest of the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GPU_ONLY = re.compile(r"tensorflow|nvidia-.*")
"""What the lock of the whole tree has in another form, or not at all: docs/decisions/0001."""


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("image", ["coordinator", "worker", "worker-gpu", "build"])
def test_an_image_has_the_versions_that_the_tests_run_with(image: str) -> None:
    locked, tested = pins(DEPLOY / f"{image}.lock"), pins(ROOT / "requirements.lock")
    assert locked
    other = {name: number for name, number in locked.items() if tested.get(name) != number}
    assert [name for name in other if image != "worker-gpu" or not GPU_ONLY.fullmatch(name)] == []
    text = (DEPLOY / f"{image}.lock").read_text()
    assert "://" not in text and text.count("--hash=sha256:") >= len(locked)


@pytest.mark.parametrize(
    ("image", "extras"),
    [("coordinator", ["service"]), ("worker", ["service", "compute"]), ("worker-gpu", ["service", "gpu"])],
)
def test_an_image_has_all_that_is_asked_for(image: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    names = {re.split(r"[^A-Za-z0-9._-]", one)[0].lower().replace("_", "-").replace(".", "-") for one in asked}
    assert names - set(pins(DEPLOY / f"{image}.lock")) == set(), "run `make lock`"


def test_the_coordinators_image_has_neither_tensorflow_nor_tools() -> None:
    names = set(pins(DEPLOY / "coordinator.lock"))
    assert {"ray", "grpcio", "prometheus-client"} <= names
    assert not names & {"keras", "pytest", "ruff", "scikit-learn", "tensorflow", "tensorflow-cpu"}


def test_every_package_is_copied_into_the_images() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    dockerfile, ignored = (DEPLOY / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text()
    for name in {package.split(".")[0] for package in listed}:
        assert f"COPY {name} ./{name}\n" in dockerfile and f"!{name}\n" in ignored

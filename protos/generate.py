"""Generates the Python code of the .proto files; with --check, only says whether the committed code is current.

python -m protos.generate [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
SOURCES = sorted(ROOT.glob("gradwire/v1/*.proto"))
# Generated modules import each other as gradwire.v1, which is the client's package: they live in protos.gradwire.v1.
IMPORT = re.compile(r"^(from|import) gradwire\.v1\b", re.MULTILINE)


def generate(target: Path) -> None:
    """Writes the generated modules and their stubs below `target`."""
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{resources.files('grpc_tools').joinpath('_proto')}",
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out={target}",
        f"--mypy_grpc_out={target}",
        *(str(source) for source in SOURCES),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed; its message stands above")
    for file in target.glob("gradwire/v1/*_pb2*"):
        text = IMPORT.sub(r"\1 protos.gradwire.v1", file.read_text())
        file.write_text(text.replace("gradwire.v1.spec_pb2.", "protos.gradwire.v1.spec_pb2."))
        if "service" not in file.name and "_grpc" in file.name:
            file.unlink()  # a file without services


def main() -> int:
    """Regenerates, or compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed code, write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_text() for path in Path(folder).glob("gradwire/v1/*_pb2*")}
    committed = {path.name: path.read_text() for path in ROOT.glob("gradwire/v1/*_pb2*")}
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    if stale:
        print(f"generated code is stale: {', '.join(stale)}; run make protos", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

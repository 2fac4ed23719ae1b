"""The commands against a double of the client: exit codes, --json discipline, what people read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gradwire.cli.main import main
from gradwire.errors import AlreadyExists, Exhausted, InvalidSpec, Unauthenticated, Unavailable, Violation
from tests.unit.cli_double import JOB_ID, ClientDouble, make_job

ROOT = Path(__file__).parents[2]
JOB_FILE = str(ROOT / "examples" / "digits" / "job.yaml")
COMMANDS: dict[str, list[str]] = {
    "submit": ["submit", JOB_FILE],
    "submit --watch": ["submit", JOB_FILE, "--watch"],
    "jobs": ["jobs"],
    "show": ["show", "3f2a"],
    "watch": ["watch", "3f2a"],
    "logs": ["logs", "3f2a"],
    "cancel": ["cancel", "3f2a"],
    "pause": ["pause", "3f2a"],
    "resume": ["resume", "3f2a"],
    "scale": ["scale", "3f2a", "--workers", "2"],
    "export": ["export", "3f2a", "--to", "out"],
    "plot": ["plot", "3f2a", "-o", "out.png"],
}


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[ClientDouble]:
    monkeypatch.setattr("gradwire.client.Client", ClientDouble)
    monkeypatch.setattr(ClientDouble, "script", {})
    monkeypatch.setattr(ClientDouble, "calls", [])
    monkeypatch.chdir(tmp_path)
    return ClientDouble


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_does_its_work(name: str) -> None:
    result = run(*COMMANDS[name])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_one_document_on_stdout(name: str) -> None:
    result = run(*COMMANDS[name], "--json")
    assert result.exit_code == 0
    assert isinstance(document(result), dict)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_server_is_exit_code_1_with_the_command_to_start_one(name: str, client: type[ClientDouble]) -> None:
    client.script["error"] = Unavailable("no server answers at 127.0.0.1:50551")
    result = run(*COMMANDS[name], "--json")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "gradwire: no server answers at 127.0.0.1:50551"
    assert "gradwire serve" in result.stderr.splitlines()[1]
    assert document(result)["error"]["code"] == "unavailable"


@pytest.mark.parametrize("name", ["show", "watch", "logs", "export", "plot"])
def test_an_unknown_job_is_wrong_input(name: str) -> None:
    command, _, *rest = COMMANDS[name]
    result = run(command, "ffff", *rest)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "gradwire: no job ffff\n  gradwire jobs\n"


@pytest.mark.parametrize(
    ("error", "exit_code"), [(AlreadyExists("used"), 2), (Unauthenticated("no token"), 2), (Exhausted("queue full"), 1)]
)
def test_exit_codes_of_the_server_s_errors(error: Exception, exit_code: int, client: type[ClientDouble]) -> None:
    client.script["error"] = error
    result = run("submit", JOB_FILE)
    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"gradwire: {error}\n")


def test_every_violation_is_a_line_with_its_field(client: type[ClientDouble]) -> None:
    client.script["error"] = InvalidSpec(
        [Violation("training.epochs", "must be at least 1"), Violation("name", "is empty")]
    )
    result = run("submit", JOB_FILE)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1:3] == ["  training.epochs: must be at least 1", "  name: is empty"]
    assert result.stderr.splitlines()[3].endswith(f"gradwire submit {JOB_FILE}")
    found = document(run("submit", JOB_FILE, "--json"))["error"]["violations"]
    assert found[0] == {"field": "training.epochs", "description": "must be at least 1"}


def test_a_job_file_with_a_fault_never_reaches_the_server(client: type[ClientDouble], tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: x\ntrainin: {}\n", encoding="utf-8")
    result = run("submit", str(path))
    assert result.exit_code == 2
    assert "trainin" in result.stderr
    assert client.calls == []


@pytest.mark.parametrize(
    "words", [["show"], ["nonsense"], ["submit", "missing.yaml"], ["export", "3f2a"], ["jobs", "--nonsense"]]
)
def test_wrong_usage_is_exit_code_2(words: list[str]) -> None:
    result = run(*words, "--json")
    assert result.exit_code == 2
    assert document(result)["error"]["code"] == "usage"
    assert "--help" in result.stderr


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
@pytest.mark.parametrize("name", ["watch", "submit --watch"])
def test_watching_a_job_that_ends_badly_is_exit_code_1(name: str, state: str, client: type[ClientDouble]) -> None:
    client.script["job"] = make_job(state)
    result = run(*COMMANDS[name], "--json")
    assert result.exit_code == 1
    assert document(result)["state"] == state
    assert f"job {JOB_ID} {state}" in result.stderr
    assert f"gradwire logs {JOB_ID}" in result.stderr


def test_ctrl_c_leaves_the_job_running_and_says_so(client: type[ClientDouble]) -> None:
    client.script["watch_error"] = KeyboardInterrupt()
    result = run("watch", "3f2a", "--json")
    assert result.exit_code == 130
    assert f"job {JOB_ID} goes on" in result.stderr
    assert f"gradwire watch {JOB_ID}" in result.stderr
    assert document(result)["error"]["code"] == "interrupted"
    assert ("cancel", JOB_ID) not in client.calls


def test_ctrl_c_before_a_command_has_begun_its_work(client: type[ClientDouble]) -> None:
    client.script["error"] = KeyboardInterrupt()
    assert run("jobs").exit_code == 130


def test_a_fault_of_the_program_shows_its_place_and_is_no_success(client: type[ClientDouble]) -> None:
    client.script["error"] = ZeroDivisionError("of the test")
    result = run("jobs", "--json")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert document(result)["error"] == {"code": "internal", "message": "ZeroDivisionError: of the test"}


def test_options_name_the_server_and_beat_the_environment(client: type[ClientDouble], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret", encoding="utf-8")
    run("jobs", "--token-file", str(token), env={"GRADWIRE_SERVER": "10.0.0.1:1"})
    run("jobs", "--server", "10.0.0.2:2", env={"GRADWIRE_SERVER": "10.0.0.1:1", "GRADWIRE_TOKEN_FILE": str(token)})
    opened = [call[1:] for call in client.calls if call[0] == "open"]
    assert opened == [
        ("10.0.0.1:1", {"token_file": token, "tls_cert": None}),
        ("10.0.0.2:2", {"token_file": token, "tls_cert": None}),
    ]
    assert client.calls.count(("close",)) == 2


def test_submit_passes_the_request_id_on(client: type[ClientDouble]) -> None:
    run("submit", JOB_FILE, "--request-id", "nightly-7")
    assert ("submit", "nightly-7") in client.calls


def test_pausing_says_whether_it_is_done_and_how_to_go_on(client: type[ClientDouble]) -> None:
    assert (
        run("pause", "3f2a").stdout
        == f"job {JOB_ID} (digits [v2]) is paused\n  let it go on: gradwire resume {JOB_ID}\n"
    )
    client.script["paused"] = "RUNNING"
    assert "is being paused" in run("pause", "3f2a").stdout
    assert document(run("pause", "3f2a", "--json"))["state"] == "RUNNING"
    assert "goes on: it is QUEUED" in run("resume", "3f2a").stdout


def test_scaling_says_how_many_can_be_used(client: type[ClientDouble]) -> None:
    assert run("scale", "3f2a", "--workers", "4").stdout.splitlines() == [
        f"job {JOB_ID} (digits [v2]) shall have 4 workers", f"  see them: gradwire show {JOB_ID}"
    ]  # fmt: skip
    assert "only 4 of them are used: the job has 4 gradient shards" in run("scale", "3f2a", "--workers", "6").stdout
    found = document(run("scale", "3f2a", "--workers", "6", "--json"))
    assert (found["wantedWorkers"], found["usableWorkers"], found["id"]) == (6, 4, JOB_ID)
    assert ("scale", "3f2a", 6) in client.calls
    assert run("scale", "3f2a", "--workers", "many").exit_code == 2
    assert run("scale", "3f2a").exit_code == 2


def test_show_tells_why_a_job_failed(client: type[ClientDouble]) -> None:
    client.script["job"] = make_job("FAILED")
    result = run("show", "3f2a")
    assert result.exit_code == 0
    for text in ("digits [v2]", "FAILED", "nonfinite", "lower the learning rate", "at step 7", "worker w1, shard 2"):
        assert text in result.stdout


def test_show_tells_metrics_workers_and_where_time_went() -> None:
    shown = run("show", "3f2a").stdout
    for text in (
        "99.12 %",
        "98.05 %",
        "digit_accuracy 98.50 % after step 12",
        "4,210 examples/s",
        "1201",
        "shared_memory",
        "18.2 ms",
        "68 %",
        "saved_model",
    ):
        assert text in shown


def test_logs_are_printed_as_they_are() -> None:
    assert run("logs", "3f2a").stdout == "step=1 loss=2.5\nstep=2 loss=2.25\n"
    assert document(run("logs", "3f2a", "--json")) == {"id": JOB_ID, "lines": ["step=1 loss=2.5", "step=2 loss=2.25"]}


def test_no_jobs_yet(client: type[ClientDouble]) -> None:
    client.script["jobs"] = []
    assert "gradwire submit" in run("jobs").stdout
    assert document(run("jobs", "--json")) == {"jobs": []}


def test_help_loads_neither_grpc_nor_what_draws() -> None:
    program = (
        "import sys\nfrom gradwire.cli.main import main\n"
        "try:\n    main(['plot', '--help'])\nexcept SystemExit:\n"
        "    heavy = {'grpc', 'matplotlib', 'numpy', 'pydantic', 'rich', 'google.protobuf'}\n"
        "    print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_shows_every_command_with_an_example() -> None:
    overview = run("--help").stdout
    for command in ("serve", "demo", *{words[0] for words in COMMANDS.values()}):
        assert command in overview
        assert "Example:" in run(command, "--help").stdout

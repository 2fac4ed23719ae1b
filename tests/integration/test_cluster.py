"""Processes in a real Ray: how they start, talk and end, and that nobody and nothing else gets in or stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from ray.exceptions import ActorUnavailableError

from gradwire.errors import GradwireError
from gradwire.progress import Outcome, Progress
from service.cluster import RayEngine, contact, pool
from service.cluster.handle import RayTrainer, RayWorker
from service.engine import Death
from tests.integration.ray_roles import assignment
from tests.overload import overload

ROLES = {
    "trainer_role": "tests.integration.ray_roles:FakeTrainer",
    "worker_role": "tests.integration.ray_roles:FakeWorker",
}
TIMEOUT_S = 60.0

Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], timeout_s: float = TIMEOUT_S) -> Found:
    """The first answer that is neither None nor False; what is asked here must not wait."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        started = time.monotonic()
        if found := look():
            return found
        assert time.monotonic() - started < overload(), "a call that has to return within milliseconds waited"
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def ended(handle: RayWorker) -> Outcome | Death:
    """How the run ended; its process goes as well."""
    found = eventually(handle.outcome)
    handle.kill()
    return found


def progress(trainer: RayTrainer, since: int = 0) -> Progress:
    return eventually(lambda: trainer.poll(since))


def free_cpus() -> float:
    import ray

    return float(ray.available_resources().get("CPU", 0.0))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "QUIET_S", 0.0)  # a process is replaced at once
        engine = RayEngine(tmp_path_factory.mktemp("state"), None, "test", **ROLES)
        engine.start(warm=1, refill=True)
        yield engine
        engine.stop()


def test_a_trainer_listens_reports_and_stops_when_asked(engine: RayEngine) -> None:
    trainer = engine.launch_trainer(assignment("work"))
    assert eventually(trainer.exchange_address) == "/tmp/exchange of job-work"
    first, second = progress(trainer), progress(trainer, 7)
    assert (first.events[0].cursor, second.events[0].cursor) == (1, 8)
    assert first.snapshot.metrics["sum"] == 3.0
    assert trainer.outcome() is None
    trainer.cancel()
    assert ended(trainer) == Outcome(state="CANCELLED")


def test_a_trainer_has_last_words(engine: RayEngine) -> None:
    trainer = engine.launch_trainer(assignment("succeed"))
    assert eventually(trainer.outcome) == Outcome(state="SUCCEEDED")
    pid = int(progress(trainer).snapshot.metrics["pid"])
    assert psutil.pid_exists(pid)
    trainer.kill()
    eventually(lambda: not psutil.pid_exists(pid))
    assert trainer.outcome() == Outcome(state="SUCCEEDED")


def test_a_warm_process_has_not_touched_tensorflow(engine: RayEngine) -> None:
    """Threads can only be set before the first operation."""
    trainer = engine.launch_trainer(assignment("work", threads=2))
    report = progress(trainer)
    assert report.snapshot.metrics["threads"] == 2.0
    assert report.events[0].message == "<tensorflow> <1> <>"
    trainer.kill()
    assert ended(trainer) == Death("the service killed it")


@pytest.fixture
def hidden_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a coordinator, TensorFlow is not loaded, though other tests of this process have loaded it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)


def test_cancelling_before_the_start_is_not_lost(engine: RayEngine) -> None:
    trainer = engine.launch_trainer(assignment("work"))
    trainer.cancel()
    assert ended(trainer) == Outcome(state="CANCELLED")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("kill", "without a word .*SIGKILL"),
        ("abort", "of SIGABRT"),
        ("segfault", "of SIGSEGV"),
        ("leave", "an exit"),
        ("terminate", "an exit"),
    ],
)
def test_a_death_is_told_with_its_cause(engine: RayEngine, what: str, reason: str) -> None:
    found = ended(engine.launch_trainer(assignment(what)))
    assert isinstance(found, Death)
    assert re.search(rf"process \d+ died .*{reason}", found.reason)


@pytest.mark.parametrize(
    ("what", "code", "message", "detail"),
    [
        ("raise", "internal", "ZeroDivisionError: by nothing", "in _raise"),
        ("raise_foreign", "internal", "InvalidArgumentError: .*Incompatible shapes", "in _raise_foreign"),
        ("fail", "nonfinite", "the loss is NaN", "step 3"),
        ("refuse", "internal", "ValueError: no such model", "in __init__"),
    ],
)
@pytest.mark.usefixtures("hidden_tensorflow")
def test_an_error_is_an_outcome(engine: RayEngine, what: str, code: str, message: str, detail: str) -> None:
    found = ended(engine.launch_trainer(assignment(what)))
    assert isinstance(found, Outcome) and found.state == "FAILED" and found.error is not None
    assert found.error.code == code
    assert re.fullmatch(message, found.error.message.splitlines()[0].strip()) or re.search(message, found.error.message)
    assert detail in found.error.details
    assert "tensorflow" not in sys.modules, "the coordinator has imported TensorFlow"


def test_nothing_asked_of_a_handle_waits(engine: RayEngine) -> None:
    slowest_s = 0.0
    trainer = engine.launch_trainer(assignment("work"))
    asked = (trainer.exchange_address, lambda: trainer.poll(0), trainer.outcome)
    while trainer.poll(0) is None:
        for ask in asked:
            started = time.monotonic()
            ask()
            slowest_s = max(slowest_s, time.monotonic() - started)
    for act in (trainer.cancel, trainer.kill):
        started = time.monotonic()
        act()
        slowest_s = max(slowest_s, time.monotonic() - started)
    ended(trainer)
    assert slowest_s < 0.25 * overload()  # milliseconds, but for the scheduler of a busy machine


@pytest.mark.parametrize("role", ["trainer", "worker"])
def test_a_stopped_process_is_gone_when_its_end_is_told(engine: RayEngine, role: str) -> None:
    """Ray alone tells the end at once, and kills the process five seconds later."""
    before = free_cpus()
    if role == "trainer":
        handle: RayWorker = engine.launch_trainer(assignment("work"))
        pid = int(progress(handle).snapshot.metrics["pid"])  # type: ignore[arg-type]
    else:
        handle = engine.launch_worker(assignment("work", worker_id="w1"), None, cpus=0.5, gpus=0)
        eventually(lambda: handle._launch.is_started)
        member = handle._launch.member
        assert member is not None and member.identity is not None
        pid = member.identity.pid
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    handle.kill("it hung", is_hung=True)
    assert eventually(handle.outcome) == Death("it hung")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert time.monotonic() - started < 3.0 * overload()
    eventually(lambda: free_cpus() == before)


@pytest.mark.parametrize("lost", ["_started", "_answered"])
def test_a_process_that_ray_does_not_reach_for_a_moment_is_asked_again(engine: RayEngine, lost: str) -> None:
    """As a network does that fails for a second: Ray cannot tell whether the call has been heard."""
    trainer = engine.launch_trainer(assignment("work"))
    eventually(trainer.exchange_address)
    launch, launcher = trainer._launch, trainer._launcher
    unheard: Future[None] = Future()
    unheard.set_exception(ActorUnavailableError("rpc error: connection reset", None))
    trainer._mailbox.post(getattr(launcher, lost), launch, launch.member, unheard)
    eventually(trainer.is_missed)
    eventually(lambda: not trainer.is_missed())
    assert trainer.outcome() is None
    trainer.cancel()
    assert ended(trainer) == Outcome(state="CANCELLED")


def test_a_process_that_stays_out_of_reach_is_given_up(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "LOST_S", 0.0)
    trainer = engine.launch_trainer(assignment("work"))
    eventually(trainer.exchange_address)
    unheard: Future[None] = Future()
    unheard.set_exception(ActorUnavailableError("rpc error: connection reset", None))
    trainer._mailbox.post(trainer._launcher._answered, trainer._launch, trainer._launch.member, unheard)
    end = eventually(trainer.outcome)
    assert isinstance(end, Death) and "connection reset" in end.reason


def test_a_workers_share_is_taken_and_given_back(engine: RayEngine) -> None:
    [node] = engine.resources()
    before = free_cpus()
    worker = engine.launch_worker(assignment("work", worker_id="w1"), node.node, cpus=0.5, gpus=0)
    assert worker.id == "w1"
    eventually(lambda: free_cpus() == before - 0.5)
    worker.kill()
    ended(worker)
    eventually(lambda: free_cpus() == before)


def test_a_worker_beyond_the_cluster_waits_and_can_be_given_up(engine: RayEngine) -> None:
    worker = engine.launch_worker(assignment("succeed"), None, cpus=1000.0, gpus=0)
    other = engine.launch_worker(assignment("succeed"), None, cpus=0.5, gpus=0)
    assert ended(other) == Outcome(state="SUCCEEDED")
    assert worker.outcome() is None
    worker.kill()
    assert ended(worker) == Death("the service killed it before it had a process")


def test_an_idle_process_that_dies_is_replaced(engine: RayEngine) -> None:
    others = {child.pid for child in psutil.Process().children() if "service" in child.cmdline()}

    def warm() -> list[psutil.Process]:
        """Those of this engine; a service that other tests have started has a Ray of its own."""
        children = psutil.Process().children(recursive=True)
        found = [child for child in children if child.name().startswith("ray::Process")]
        return [child for child in found if not others & {parent.pid for parent in child.parents()}]

    eventually(lambda: not engine.stages())
    [first] = eventually(lambda: found if len(found := warm()) == 1 else None)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: [process for process in warm() if process.pid != first.pid])
    eventually(lambda: not engine.stages())


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    """Another process, which has no token unless it is given one."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**own, "PYTHONPATH": root, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def gcs_address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def test_a_process_has_one_engine(engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(GradwireError, match="connected to a Ray already"):
        RayEngine(tmp_path, None, "second").start(warm=0, refill=False)
    assert ended(engine.launch_trainer(assignment("succeed"))) == Outcome(state="SUCCEEDED")


def test_nobody_connects_without_the_token(engine: RayEngine) -> None:
    code = f"import ray; ray.init(address={gcs_address()!r}, log_to_driver=False); print('inside')"
    own = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    guests = {
        "no token": python(code, RAY_AUTH_MODE="disabled"),
        "a wrong token": python(code, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64),
        "the token": python(code, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=own),
    }
    said = {name: guest.communicate(timeout=TIMEOUT_S)[0] for name, guest in guests.items()}
    assert {name: guest.returncode for name, guest in guests.items()} == {
        "no token": 1,
        "a wrong token": 1,
        "the token": 0,
    }, said
    assert "ConnectionError" in said["no token"] and "ConnectionError" in said["a wrong token"]


def test_ray_listens_on_loopback_alone(engine: RayEngine) -> None:
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3
    assert set(listening) == {"127.0.0.1"}


GIVEN = """
import sys, time
from pathlib import Path
from service.cluster import RayEngine
from tests.integration.ray_roles import assignment
engine = RayEngine(Path("unused"), sys.argv[1], "other", trainer_role={trainer_role!r}, worker_role={worker_role!r})
engine.start(warm=0, refill=False)
worker = engine.launch_worker(assignment("succeed"), None, cpus=0.5, gpus=0)
while worker.outcome() is None:
    time.sleep(0.01)
print(worker.outcome())
engine.stop()
"""


def test_a_given_cluster_is_used_and_stays(engine: RayEngine) -> None:
    code = GIVEN.format(**ROLES).replace("sys.argv[1]", repr(gcs_address()))
    guest = python(code, RAY_AUTH_TOKEN_PATH=os.environ["RAY_AUTH_TOKEN_PATH"])
    said = guest.communicate(timeout=TIMEOUT_S)[0]
    assert "Outcome(state='SUCCEEDED', error=None)" in said
    assert guest.returncode == 0
    assert ended(engine.launch_trainer(assignment("succeed"))) == Outcome(state="SUCCEEDED")


LIFE = """
import sys, time
from pathlib import Path
import psutil
from service.cluster import RayEngine
engine = RayEngine(Path(sys.argv[1]), None, "short", trainer_role="", worker_role="")
engine.start(warm=1, refill=False)
time.sleep(1.0)  # in the middle of its imports
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
sys.stdin.read()
engine.stop()
"""


def live(state: Path, folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A service of its own that has started, and its processes."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)}
    service = subprocess.Popen(
        [sys.executable, "-c", LIFE, str(state)],
        env={name: value for name, value in environment.items() if not name.startswith("RAY_")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert service.stdout is not None
    processes = [psutil.Process(int(pid)) for pid in service.stdout.readline().split()]
    assert {"gcs_server", "raylet"} <= {process.name() for process in processes}
    return service, processes


def alive(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
        except psutil.NoSuchProcess:
            pass
    return found


def test_stop_leaves_nothing(tmp_path: Path, short_path: Path) -> None:
    service, processes = live(tmp_path, short_path)
    service.communicate("", timeout=TIMEOUT_S)
    assert service.returncode == 0
    assert alive(processes) == []
    assert list(short_path.iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["ray_token"]


def test_after_a_kill_processes_end_and_the_next_start_removes_the_folder(tmp_path: Path, short_path: Path) -> None:
    service, processes = live(tmp_path, short_path)
    service.kill()
    service.communicate()
    # Ray's two agents go on for a minute, as they tell a GCS server that is no more.
    eventually(lambda: {*alive(processes)} <= {"ray::DashboardAgent", "ray::RuntimeEnvAgent"})
    [left] = short_path.iterdir()
    service, processes = live(tmp_path, short_path)
    assert not left.exists()
    service.communicate("", timeout=TIMEOUT_S)
    assert service.returncode == 0
    assert list(short_path.iterdir()) == []

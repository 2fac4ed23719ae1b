"""The body of a warm process: TensorFlow imported and its context untouched, until it becomes a trainer or a worker."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import structlog

from gradwire.assignment import Assignment
from gradwire.errors import GradwireError
from gradwire.progress import ErrorView, Outcome
from service import logs
from service.identity import Identity

ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Set before TensorFlow and NumPy are imported. Ray would set OMP_NUM_THREADS by a process's CPUs; TensorFlow's own
threads are counted by the job, so what else a library starts stays at one, the same on every machine."""

OPTIONAL_IN_KERAS = ("matplotlib", "sklearn")
"""Keras imports them, where they are installed, for its plots and its scikit-learn wrappers: a third of the time."""

log = structlog.get_logger()

ROLE_MODULES = ("service.training.trainer", "workers.worker")
"""Imported beforehand, as far as they can be; a role is loaded by its name all the same."""


class Process:
    """Serves one job, in the role that `start` names.

    `idle` occupies a thread until then; the role runs in one of the process's own, so that it depends on no call of
    anybody's, and its outcome stays here for whoever asks by `outcome`. What a role raises leaves the process as an
    Outcome or a plain GradwireError: the coordinator would import TensorFlow to unpickle an error of it.
    """

    def __init__(self, *, uses_gpu: bool = False) -> None:
        faulthandler.enable()
        if threading.current_thread() is threading.main_thread():
            # Ray's handler waits for the calls that go on, and `idle` and `run` go on until somebody else acts.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        warnings.simplefilter("ignore")
        os.environ.update(ENVIRONMENT)
        if not uses_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._lock = threading.Lock()
        self._taken = threading.Event()
        self._ended = threading.Event()
        self._task: tuple[str, Assignment] | None = None
        self._body: Any = None
        self._outcome: Outcome | None = None

    def who(self) -> Identity:
        """This process: told at once, for whoever may have to kill it."""
        return Identity.own()

    def warm(self) -> dict[str, object]:
        """Imports what every job needs; returns `pid`, `seconds` and, by module, why a role could not be imported.

        Raises ImportError where TensorFlow or Keras are missing.
        """
        started = time.monotonic()
        with self._lock, _quick_imports():
            import_tensorflow()
            failed = {module: fault for module in ROLE_MODULES if (fault := _import_fault(module))}
        return {"pid": os.getpid(), "seconds": time.monotonic() - started, "failed": failed}

    def idle(self) -> None:
        """Returns when the process is taken; until then its end is noticed by whoever waits for this."""
        self._taken.wait()

    def start(self, role: str, arguments: Assignment) -> str:
        """Becomes `role`, a class as "module:Class", and runs it; returns its `exchange_address`, or "" without one.

        Told twice, since its answer was lost on the way, it answers again. Raises GradwireError where the process is
        taken already, the role does not exist, or TensorFlow has been used.
        """
        if self._task not in (None, (role, arguments)):
            raise GradwireError(f"process {os.getpid()} has a job; {role} of job {arguments.job_id} needs another one")
        self._task = (role, arguments)
        self._taken.set()
        with self._lock, _plain_errors():
            if self._body is None:
                self._become(role, arguments)
        return self.address()

    def _become(self, role: str, arguments: Assignment) -> None:
        import_tensorflow()
        _set_threads(arguments.threads)
        _configure_log(arguments)
        self._body = load(role)(arguments)
        log.info("role_taken", role=role, pid=os.getpid())
        threading.Thread(target=self._run, name="role", daemon=True).start()

    def address(self) -> str:
        """The role's `exchange_address`, or ""."""
        return str(getattr(self._role(), "exchange_address", ""))

    def outcome(self, wait_s: float) -> Outcome | None:
        """How the role's `run` went; None if it goes on after `wait_s`. FAILED where it raised, `internal` if not on
        purpose."""
        self._ended.wait(wait_s)
        return self._outcome

    def _run(self) -> None:
        try:
            with _plain_errors():
                self._outcome = self._body.run()
        except GradwireError as error:
            view = ErrorView(code=error.code, message=error.message, details=error.details)
            self._outcome = Outcome(state="FAILED", error=view)
        finally:
            silent = ErrorView(code="internal", message="the process's role ended without an outcome")
            ended = self._outcome = self._outcome or Outcome(state="FAILED", error=silent)
            why = {"code": ended.error.code, "why": ended.error.message} if ended.error is not None else {}
            log.info("role_ended", state=ended.state, **why)
            self._ended.set()

    def call(self, method: str, *arguments: object) -> object:
        """Calls a method of the role beside its `run`, such as `progress` and `cancel`."""
        with _plain_errors():
            return getattr(self._role(), method)(*arguments)

    def _role(self) -> Any:
        if self._body is None:
            raise GradwireError(f"process {os.getpid()} has no role yet; call start first")
        return self._body


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except GradwireError as error:
        details = error.details or traceback.format_exc()
        raise GradwireError(error.message, code=error.code, details=details) from None
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise GradwireError(message, code="internal", details=traceback.format_exc()) from None


def load(role: str) -> Any:
    """The class that "module:Class" names; by name, so that `service` and `workers` need not import each other."""
    module, _, name = role.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type):
        raise GradwireError(f"no role {role!r}: {module} has no class {name!r}")
    return found


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras without what Keras can do without."""
    with _hidden(OPTIONAL_IN_KERAS):
        importlib.import_module("tensorflow")
        importlib.import_module("keras")


@contextlib.contextmanager
def _hidden(modules: tuple[str, ...]) -> Iterator[None]:
    # None in sys.modules makes an import fail with ImportError, for which Keras is prepared.
    loaded: dict[str, Any] = sys.modules
    absent = [module for module in modules if module not in loaded]
    loaded.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for module in absent:
            del loaded[module]


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    # The garbage collector takes a fifth of the time, looking at modules that stay for good; frozen, it passes them by.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _import_fault(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _configure_log(arguments: Assignment) -> None:
    """Every line says whose it is. Standard error is for what ends the process."""
    logs.configure(
        arguments.log_format,
        file=sys.stdout,
        job=arguments.job_id,
        generation=arguments.generation,
        worker=arguments.worker_id,
    )
    logs.catch_others()


def _set_threads(count: int) -> None:
    threading_config = importlib.import_module("tensorflow").config.threading
    try:
        threading_config.set_intra_op_parallelism_threads(count)
        threading_config.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise GradwireError(
            f"the job's {count} threads cannot be set: a module imported at start ran a TensorFlow operation ({error})"
        ) from error

"""The supervisor: the one thread that moves jobs on, from the queue to their end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import structlog

from gradwire.errors import GradwireError, NotPossible, Unavailable
from gradwire.progress import ErrorView
from gradwire.telemetry import Telemetry
from service.admission import Decision, Grant, decide, growth
from service.caretaker import Caretaker
from service.engine import Engine, NodeResources
from service.foreman import Foreman
from service.jobs.journal import Journal
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.launcher import Launcher
from service.recovery import End, failure
from service.retirement import Retirement
from service.run import WAITING, LiveJob, Run, live_job
from service.steering import Steering
from service.store.base import JobStore, Unwritable

TICK_S = 0.1
IDLE_TICK_S = 0.5
AFTER_ERROR_S = 1.0
EXPLAIN_EVERY_S = 1.0
"""A waiting job's reason changes with every job that ends; people are told at most this often."""
ANSWER_S = 10.0
"""How long a caller waits for the supervisor."""
STOP_S = 5.0
"""How long trainers have for their last checkpoint when the service stops."""

log = structlog.get_logger()


Act = Callable[[LiveJob, float], JobRecord]


@dataclass(frozen=True, slots=True)
class _Request:
    """What somebody asks of a job; `done` is the participle for people."""

    job_id: str
    done: str
    act: Act
    answer: Future[JobRecord]


class Supervisor:
    """Owns all live jobs. What is public but `recover` and `tick` may be called from any thread.

    What is asked of a job, by its whole id, is answered by the job as it is after that, or by the error `NotPossible`
    if the job has ended otherwise.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        journal: Journal,
        engine: Engine,
        launcher: Launcher,
        clock: Callable[[], float],
        cleared: Callable[[Run], None] = lambda run: None,
        adopted: Callable[[Collection[Run]], None] | None = None,
        measure: Callable[[JobRecord, Telemetry], None] = lambda record, telemetry: None,
    ) -> None:
        """`clock` gives seconds that never go back; `cleared` is called when the last process of a run is gone.

        `adopted` is given where processes may outlive the coordinator, and is told once which have; `measure` is told
        what trainers count.
        """
        self._store = store
        self._journal = journal
        self._engine = engine
        self._clock = clock
        self._retirement = Retirement(cleared)
        self._foreman = Foreman(journal, launcher)
        self._caretaker = Caretaker(journal, launcher, self._foreman, self._retirement, engine.stages, measure)
        self._steering = Steering(journal, self._caretaker)
        self._adopted = adopted
        self._jobs: dict[str, LiveJob] = {}
        self._inbox: queue.SimpleQueue[str | _Request] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._is_engine_up = threading.Event()
        self._is_stopping = threading.Event()
        self._is_stuck = False
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)

    def start(self) -> None:
        """Takes up the jobs that the store has, and begins to tick."""
        self.recover()
        self._thread.start()

    def stop(self) -> None:
        """Lets the trainers write a checkpoint, and ends the thread; the jobs go on when the service starts again."""
        self._is_stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S + ANSWER_S)

    @property
    def is_stuck(self) -> bool:
        """Whether the store takes nothing just now, so that no job is moved on."""
        return self._is_stuck

    def submitted(self, job_id: str) -> None:
        """A job is new in the store."""
        self._inbox.put(job_id)
        self._wake.set()

    def cancel(self, job_id: str) -> Future[JobRecord]:
        """Asks for a job's end; one that is cancelled already stays so."""
        return self._ask(job_id, "cancelled", self._caretaker.cancel)

    def pause(self, job_id: str) -> Future[JobRecord]:
        """Asks a job to give its workers back, and to wait until it is resumed."""
        return self._ask(job_id, "paused", self._steering.pause)

    def resume(self, job_id: str) -> Future[JobRecord]:
        """Asks for a paused job to be queued again."""
        return self._ask(job_id, "resumed", self._steering.resume)

    def scale(self, job_id: str, workers: int) -> Future[JobRecord]:
        """Asks for another number of workers; `InvalidSpec` if the job cannot have it."""
        return self._ask(job_id, "scaled", lambda job, now: self._steering.scale(job, workers, now))

    def _ask(self, job_id: str, done: str, act: Act) -> Future[JobRecord]:
        answer: Future[JobRecord] = Future()
        if self._is_stopping.is_set():
            answer.set_exception(Unavailable("the service is stopping; try again when it is back"))
            return answer
        self._inbox.put(_Request(job_id, done, act, answer))
        self._wake.set()
        return answer

    def engine_started(self) -> None:
        """From now on jobs can be launched."""
        self._is_engine_up.set()
        self._wake.set()

    def recover(self) -> None:
        """Takes up the live jobs; the engine tells later which of their processes have outlived the last service."""
        for record in self._store.live():
            self._jobs[record.id] = live_job(record)
        if self._adopted is None:
            for job in self._jobs.values():
                self._take_loss(job)
        self._forget_ended()

    def _take_loss(self, job: LiveJob) -> None:
        """What follows for a job whose processes have died with the service that launched them."""
        record = job.record
        if record.is_cancelling:
            self._caretaker.cancel(job, self._clock())
        elif record.is_pausing:
            self._caretaker.hold(job, self._clock())
        elif record.state in (JobState.STARTING, JobState.RUNNING):
            reason = "the service was restarted; the job goes on from its last checkpoint"
            job.record = self._journal.move(record, JobState.RECOVERING, reason)

    def _adopt(self, now: float) -> None:
        """Goes on with what the last service has left at work, and ends what belongs to no live job."""
        for found in self._engine.found():
            job = self._jobs.get(found.assignment.job_id)
            if job is not None and is_adoptable(job, found.assignment.generation):
                self._guarded(job, now, partial(self._caretaker.adopt, job, found, now))
            else:
                log.info("run_abandoned", job=found.assignment.job_id, generation=found.assignment.generation)
                found.trainer.kill("its job needs it no more")
                for worker, _ in found.workers:
                    worker.kill("its job needs it no more")
        for job in self._jobs.values():
            if job.run is None:
                self._guarded(job, now, partial(self._take_loss, job))
        if self._adopted is not None:
            self._adopted([job.run for job in self._jobs.values() if job.run is not None])
            self._adopted = None

    def tick(self) -> None:
        """Moves every job on by what has happened; never waits.

        While nothing can be stored it moves none: trainers go on by themselves, and what they report meanwhile is asked
        for afterwards.
        """
        try:
            if self._is_stuck:
                self._store.probe()
                self._is_stuck = False
                log.info("store_writable_again")
            self._move_on()
        except Unwritable as error:
            if not self._is_stuck:
                log.error("store_not_writable", why=error.message)
            self._is_stuck = True
            self._refuse(error)

    def _move_on(self) -> None:
        now = self._clock()
        self._read_inbox(now)
        if self._is_engine_up.is_set() and self._adopted is not None:
            self._adopt(now)
        nodes = self._engine.resources() if self._is_engine_up.is_set() else ()
        names = {node.node for node in nodes}
        for job in list(self._jobs.values()):
            if job.run is not None:
                self._guarded(job, now, partial(self._caretaker.tick, job, job.run, names, now))
        self._retirement.tick(now)
        self._forget_ended()
        if self._is_engine_up.is_set():
            decision = self._admit(nodes, now)
            self._grow(decision, nodes, now)
        else:
            self._explain_engine(now)
        self._forget_ended()

    def _work(self) -> None:
        while not self._is_stopping.is_set():
            pause_s = TICK_S
            try:
                self.tick()
                if self._is_stuck:
                    pause_s = AFTER_ERROR_S
                elif not self._retirement and all(job.run is None for job in self._jobs.values()):
                    pause_s = IDLE_TICK_S
            except Exception:
                log.exception("tick_failed")
                pause_s = AFTER_ERROR_S
            if self._wake.wait(pause_s):
                self._wake.clear()
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Trainers that are cancelled save their state; the records stay as they are, for `recover`."""
        runs = [job.run for job in self._jobs.values() if job.run is not None]
        for run in runs:
            if run.trainer.exchange_address() is None:
                run.trainer.kill()  # it has nothing yet to save
            else:
                run.trainer.cancel()
        deadline, pause = self._clock() + STOP_S, threading.Event()
        while any(run.trainer.outcome() is None for run in runs) and self._clock() < deadline:
            pause.wait(TICK_S / 2)
        self._refuse(Unavailable("the service is stopping; try again when it is back"))

    def _refuse(self, error: GradwireError) -> None:
        """Answers all requests with an error; jobs that were submitted stay for later."""
        submitted = []
        while not self._inbox.empty():
            match self._inbox.get():
                case _Request() as request:
                    request.answer.set_exception(error)
                case str() as job_id:
                    submitted.append(job_id)
        for job_id in submitted:
            self._inbox.put(job_id)

    def _read_inbox(self, now: float) -> None:
        while not self._inbox.empty():
            match self._inbox.get():
                case _Request() as request:
                    try:
                        request.answer.set_result(self._answer(request, now))
                    except Exception as error:
                        request.answer.set_exception(error)
                case str() as job_id:
                    self._take_up(job_id)

    def _take_up(self, job_id: str) -> None:
        record = self._store.get(job_id)
        if not record.has_ended:
            self._jobs.setdefault(job_id, live_job(record))

    def _answer(self, request: _Request, now: float) -> JobRecord:
        self._take_up(request.job_id)
        if (job := self._jobs.get(request.job_id)) is not None:
            return request.act(job, now)
        record = self._store.get(request.job_id)
        if request.done != record.state.lower():
            raise NotPossible(f"job {request.job_id} is {record.state} and cannot be {request.done}")
        return record

    def _guarded(self, job: LiveJob, now: float, action: Callable[[], None]) -> None:
        """A fault in handling one job fails that job, and no other. A full disk is nobody's fault."""
        try:
            action()
        except Unwritable:
            raise
        except Exception as error:
            log.exception("job_not_handled", job=job.record.id)
            code = error.code if isinstance(error, GradwireError) else "internal"
            message = f"the service failed to handle the job: {type(error).__name__}: {error}"
            if not job.record.has_ended:
                self._caretaker.finish(job, _fault(code, message), now)

    def _admit(self, nodes: tuple[NodeResources, ...], now: float) -> Decision:
        while True:
            waiting = [job for job in self._jobs.values() if job.is_waiting and job.held_until <= now]
            decision = decide([job.demand for job in waiting], self._grants(), nodes) if waiting else Decision()
            if decision.grant is None:
                break
            job, grant = self._jobs[decision.grant.demand.job_id], decision.grant
            self._guarded(job, now, partial(self._caretaker.start, job, grant, now))
            self._forget_ended()
        for job in waiting:
            self._explain(job, decision.reasons[job.record.id], now)
        for job in self._jobs.values():
            job.keeps_spares = not decision.needs_spares
        return decision

    def _grow(self, decision: Decision, nodes: tuple[NodeResources, ...], now: float) -> None:
        """Nobody waits: who has fewer workers than asked for gets more. Who has too few comes before the queue."""
        for spares in (False, True):  # nobody gets a spare before everybody has workers
            for job in self._jobs.values():
                run = job.run
                if run is None or run.end is not None or run.stopping_since is not None:
                    continue
                if run.grant.total < job.demand.min_workers or not decision.is_awaited:
                    more = growth(run.grant, self._grants(), nodes, spares=spares and not decision.is_awaited)
                    if more:
                        self._guarded(job, now, partial(self._foreman.grow, job, run, more))

    def _grants(self) -> list[Grant]:
        running = [job.run.grant for job in self._jobs.values() if job.run is not None]
        return [*running, *self._retirement.grants]

    def _explain_engine(self, now: float) -> None:
        stage = self._engine.stages()
        reason = "the compute engine is starting" + (f": {stage}" if stage else "")
        for job in self._jobs.values():
            if job.record.state in WAITING:
                self._explain(job, reason, now)

    def _explain(self, job: LiveJob, reason: str, now: float) -> None:
        if reason != job.record.state_reason and now - job.explained_at >= EXPLAIN_EVERY_S:
            job.explained_at = now
            job.record = self._journal.explain(job.record, reason)

    def _forget_ended(self) -> None:
        self._jobs = {job_id: job for job_id, job in self._jobs.items() if not job.record.has_ended}


def is_adoptable(job: LiveJob, generation: int) -> bool:
    """Whether a trainer of this start is the one that the job's record speaks of."""
    return (
        job.run is None
        and job.record.state in (JobState.STARTING, JobState.RUNNING, JobState.RECOVERING)
        and job.record.generation == generation
    )


def _fault(code: str, message: str) -> End:
    return failure(ErrorView(code=code, message=message))

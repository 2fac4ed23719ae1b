"""What the metrics know of one job: its record, and counts that go on over all starts of its trainer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gradwire.telemetry import Telemetry
from service.jobs.record import JobRecord
from service.jobs.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One job's; times are seconds since the epoch."""

    record: JobRecord
    past: Telemetry = field(default_factory=Telemetry)
    """Of the starts before the present one."""
    present: Telemetry = field(default_factory=Telemetry)
    generation: int = 0
    """The start that `present` is of."""
    high_step: int = 0
    """The furthest step that was ever committed."""
    committed_s: float = 0.0
    """Time of the steps that made it so."""
    queued_since_s: float | None = None
    recovering_since_s: float | None = None
    running_since_s: float | None = None
    recoveries: int = 0
    recovery_s: float = 0.0

    @property
    def total(self) -> Telemetry:
        """Of all starts together."""
        return self.present.after(self.past)


def opened(record: JobRecord) -> Account:
    """The account of a job that is seen for the first time."""
    return Account(
        record=record,
        generation=record.generation,
        high_step=record.snapshot.step,
        queued_since_s=record.created_at_s if record.state is JobState.QUEUED else None,
    )


def observed(account: Account, record: JobRecord, now_s: float) -> Account:
    """After a change of the job's record."""
    old, new = account.record.state, record.state
    changed = replace(account, record=record)
    if old is new:
        return changed
    since = account.recovering_since_s
    is_recovering = new is JobState.RECOVERING
    return replace(
        changed,
        queued_since_s=now_s if new is JobState.QUEUED else None,
        recovering_since_s=now_s if is_recovering else None,
        running_since_s=now_s if new is JobState.RUNNING else None,
        recoveries=account.recoveries + is_recovering,
        recovery_s=account.recovery_s + (now_s - since if since is not None else 0.0),
    )


def measured(account: Account, generation: int, telemetry: Telemetry) -> Account:
    """After a reading of a start's counts; one of an earlier start comes too late."""
    if generation < account.generation:
        return account
    if generation > account.generation:
        account = replace(account, past=account.total, present=Telemetry(), generation=generation)
    steps = telemetry.steps - account.present.steps
    seconds = telemetry.step_s - account.present.step_s
    new_steps = max(telemetry.step - account.high_step, 0)
    return replace(
        account,
        present=telemetry,
        high_step=max(telemetry.step, account.high_step),
        committed_s=account.committed_s + (seconds * min(new_steps / steps, 1.0) if steps > 0 else 0.0),
    )

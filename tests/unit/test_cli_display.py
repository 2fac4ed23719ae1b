"""The displays of a running job: lines in a pipe, moving lines on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gradwire.cli.display import display_on
from gradwire.cli.figures import age_text, duration_text, head_order, metric_order, metric_text
from gradwire.cli.line_display import LineDisplay
from gradwire.cli.live_display import LiveDisplay
from gradwire.cli.status import Status, after
from protos.gradwire.v1 import service_pb2 as pb
from tests.unit.cli_double import make_events, make_job


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def lines_of(seconds_between: float) -> list[str]:
    clock, out = Clock(), io.StringIO()
    display = LineDisplay(Console(file=out, width=40), clock)
    with display:
        display.stage("starting Ray")
        display.job("digits", ["digit"])
        for event in make_events():
            event.time.FromMilliseconds(round(clock.now_s * 1000))
            display.event(event)
            clock.now_s += seconds_between
    return out.getvalue().splitlines()


def test_lines_carry_the_time_and_are_not_wrapped() -> None:
    lines = lines_of(seconds_between=1.5)
    assert lines[0] == "   0.0 s  starting Ray"
    assert lines[1] == "   0.0 s  RUNNING  the first step is under way"
    assert lines[2] == "   1.5 s  step 6/24   epoch 1   loss 1  digit_accuracy 90.60 %"
    assert lines[-1] == "  10.5 s  SUCCEEDED"
    assert "validation loss 0.2917  digit_accuracy 91.40 %" in lines[-2]


def test_at_most_one_line_of_progress_a_second_and_the_last_is_never_lost() -> None:
    lines = lines_of(seconds_between=0.2)
    steps = [line.split("step ")[1].split("/")[0] for line in lines if "step " in line and "/24" in line]
    assert steps == ["6", "24"]  # the first at 0.2 s; at 1.2 s the end, which waits for nothing


def test_the_history_of_a_job_has_its_own_times() -> None:
    """All events come at once, long after they have happened; the stage before the first is of now."""
    clock, out = Clock(), io.StringIO()
    events = make_events()
    clock.now_s = events[-1].time.seconds + 100
    with LineDisplay(Console(file=out, width=200), clock) as display:
        for event in events:
            display.event(event)
        display.stage("stopping")
    lines = out.getvalue().splitlines()
    assert [line[:8] for line in lines] == [f"{seconds:6.1f} s" for seconds in (0, 1, 3, 4, 6, 7, 107)], lines


def test_progress_comes_out_at_the_end_if_the_stream_breaks_off() -> None:
    clock, out = Clock(), io.StringIO()
    with LineDisplay(Console(file=out, width=200), clock) as display:
        for event in make_events()[:4]:
            display.event(event)
    assert "step 12/24" in out.getvalue().splitlines()[-1]


def test_the_console_decides_which_display_there_is() -> None:
    assert isinstance(display_on(Console(file=io.StringIO())), LineDisplay)
    assert isinstance(display_on(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)


def picture(display: LiveDisplay) -> str:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(display.picture())
    return console.export_text()


def test_the_picture_moves_from_stages_to_numbers() -> None:
    clock = Clock()
    display = LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=100), clock)
    display.stage("importing TensorFlow (2 of 3)")
    clock.now_s += 3
    assert "gradwire  importing TensorFlow (2 of 3)  3.0 s" in picture(display)
    display.job("digits", ["digit"])
    events = make_events()
    display.event(pb.JobEvent(kind="state", state=pb.JOB_STATE_QUEUED, message="waits for 1 CPU"))
    assert "digits  queued: waits for 1 CPU" in picture(display)
    for event in events[:-1]:
        display.event(event)
    text = picture(display)
    for part in ("digits  training", "step 24/24 100 %", "loss 0.25  digit_accuracy 92.40 %", "validation"):
        assert part in text


def test_what_is_notable_stays_on_the_terminal() -> None:
    out = io.StringIO()
    with LiveDisplay(Console(file=out, force_terminal=True, width=100), Clock()) as display:
        display.event(pb.JobEvent(kind="worker", message="worker w1 died; its shards go to w0"))
        display.event(pb.JobEvent(kind="warning", message="no room left"))
    assert "worker w1 died; its shards go to w0" in out.getvalue()
    assert "warning: no room left" in out.getvalue()


def test_the_time_left_is_guessed_from_the_steps_seen() -> None:
    status = Status()
    for event in make_events()[:-4]:
        status = after(status, event)
    # Steps 6 to 12 took two seconds by the events' times: 12 more take four.
    assert (status.step, status.seconds_left) == (12, 4.0)


def test_a_dead_worker_is_not_counted() -> None:
    dead = [pb.Worker(id="w0", state="READY", phase="compute"), pb.Worker(id="w1", state="DEAD")]
    assert after(Status(), pb.JobEvent(kind="worker", workers=dead)).workers == (("w0", "compute"),)


def test_metrics_are_read_main_head_first() -> None:
    job = make_job()
    job.spec.loss["aux"].weight, job.spec.loss["digit"].weight = 0.3, 1.0
    names = ["aux_accuracy", "aux_loss", "digit_accuracy", "digit_loss", "loss"]
    assert head_order(job) == ["digit", "aux"]
    assert metric_order(names, head_order(job)) == ["loss", "digit_accuracy", "aux_accuracy", "digit_loss", "aux_loss"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (12.3, "12 s"), (185, "3 min 05 s"), (59.9, "1 min 00 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s ago"), (59, "59 s ago"), (200, "3 min ago"), (90000, "1 d ago")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("loss", 0.031234, "0.03123"), ("loss", float("nan"), "not finite"), ("digit_accuracy", 1.0, "100.00 %")],
)
def test_metric_values(name: str, value: float, text: str) -> None:
    assert metric_text(name, value) == text

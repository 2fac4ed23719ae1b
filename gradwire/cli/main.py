"""The command group `gradwire`: finds a command's module when it is called, and turns errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

COMMANDS = {
    "serve": "Start a server on this machine.",
    "demo": "Train a small model on a server of its own, and show it.",
    "submit": "Send a job file to the server.",
    "jobs": "List the server's jobs, newest first.",
    "show": "Show one job: state, metrics, workers, errors, files.",
    "watch": "Follow a job until it ends.",
    "logs": "Print a job's log.",
    "cancel": "Cancel a job.",
    "pause": "Give a job's workers back until it is resumed.",
    "resume": "Let a paused job go on.",
    "scale": "Change how many workers a job has.",
    "export": "Download a job's trained model.",
    "plot": "Draw a job's training curve as a PNG.",
}
"""Name to the line that `gradwire --help` shows; the command is in the module of that name."""


class Gradwire(click.Group):
    """Imports a command's module only when the command is meant, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"gradwire.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> NoReturn:
        """Runs a command and exits: 0 done, 1 failed or cancelled, 2 wrong input, 130 interrupted."""
        words = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        try:
            code = super().main(words, *rest, **options)
        except (Exception, KeyboardInterrupt) as error:
            from gradwire.cli.failure import report

            code = report(error, is_json="--json" in words)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Gradwire, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gradwire", message="gradwire %(version)s")
def main() -> None:
    """Train Keras models on many workers, with results that do not depend on who computed them.

    \b
    Try it:                gradwire demo
    Start a server:        gradwire serve
    Train a model on it:   gradwire submit examples/digits/job.yaml --watch

    Exit codes: 0 done, 1 the job or the server failed or the job was cancelled, 2 the input is wrong, 130 interrupted.
    """


if __name__ == "__main__":
    main()

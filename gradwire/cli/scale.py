"""`gradwire scale`: changes how many workers a job has."""

from __future__ import annotations

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@click.argument("job")
@click.option("--workers", type=int, required=True, metavar="N", help="How many workers the job shall have.")
@remote_options
def scale(remote: Remote, job: str, workers: int) -> None:
    """Give JOB more or fewer workers, while it runs or waits; its result stays the same.

    More come as there is room for them; surplus ones finish what they compute, and leave. No more workers can be used
    than the job has gradient shards (training.shards), and none fewer are taken than its resources.minWorkers.

    \b
    Example:  gradwire scale 3f2a --workers 4
    """
    from gradwire.cli.figures import count_text
    from gradwire.view import job_view

    with remote.client() as client:
        answer = client.scale(job, workers)
    scaled, usable = answer.job, answer.usable_workers
    if remote.is_json:
        print_document({**job_view(scaled), "usableWorkers": usable})
        return
    click.echo(f"job {scaled.id} ({scaled.name}) shall have {count_text(scaled.wanted_workers, 'worker')}")
    if usable < scaled.wanted_workers:
        what = f"only {usable} of them {'is' if usable == 1 else 'are'} used"
        click.echo(f"  {what}: the job has {count_text(usable, 'gradient shard')}, and a shard is never cut")
    click.echo(f"  see them: gradwire show {scaled.id}")

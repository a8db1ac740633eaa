"""`pyprof doctor`: what works on this machine, tried for real."""

import click

from pyprof.profiler.errors import ExitCode

MARKS = {"ok": "ok      ", "degraded": "degraded", "missing": "missing "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> int:
    """Try each thing that a capture needs and say what is missing and how to get it.

    The exit code is 0 when captures work and 77 when they cannot.
    """
    from pyprof.profiler.doctor import checks, is_usable

    results = checks()
    if as_json:
        import json

        click.echo(json.dumps([result._asdict() for result in results], indent=2))
    else:
        for result in results:
            click.echo(f"{MARKS[result.state]}  {result.name}: {result.finding}")
            if result.remedy:
                click.echo(f"          {result.remedy}")
    return ExitCode.DONE if is_usable(results) else ExitCode.CANNOT_PROFILE

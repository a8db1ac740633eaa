"""`pyprof doctor`: what works on this machine, tried for real."""

from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from pyprof.profiler.cli.options import Numbers
from pyprof.profiler.errors import ExitCode

if TYPE_CHECKING:
    from pyprof.profiler.stack_check import StackCheck

MARKS = {"ok": "ok      ", "degraded": "degraded", "missing": "missing "}


@click.command()
@click.option("-p", "--pid", "pids", type=Numbers(), default=(), help="Tell how whole their stacks are.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, pids: tuple[int, ...], as_json: bool) -> int:
    """Try each thing that a capture needs and say what is missing and how to get it.

    With -p, sample these processes for two seconds instead, and tell what share of their user stacks is
    complete and what ends the others.

    The exit code is 0 when captures work and 77 when they cannot.
    """
    if pids:
        return _tell_stacks(pids, as_json)
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


def _tell_stacks(pids: tuple[int, ...], as_json: bool) -> int:
    from pyprof.profiler.interrupts import Interrupts
    from pyprof.profiler.libbpf_engine import LibbpfEngine
    from pyprof.profiler.stack_check import stack_check

    with Interrupts() as interrupts:
        check = stack_check(pids, LibbpfEngine(), interrupts)
    if as_json:
        import json

        places = [place._asdict() for place in check.places]
        stacks = {"user_stacks": check.quality.user_stacks, "complete": check.quality.complete}
        click.echo(json.dumps(stacks | {"unwind": check.unwind, "cut": places}, indent=2))
    else:
        for line in _stack_lines(check):
            click.echo(line)
    return ExitCode.DONE


def _stack_lines(check: "StackCheck") -> list[str]:
    from pyprof.profiler.stack_check import FEW_SAMPLES

    total = check.quality.user_stacks
    if not total:
        return ["no user code ran in two seconds: try again while the process is busy", *check.notes]
    how = "unwind tables (.eh_frame)" if check.unwind == "dwarf" else "frame pointers"
    lines = [f"{check.share:.1%} of {total:,} user stacks are complete, walked along {how}"]
    for place in check.places:
        where = PurePath(place.module).name or "memory that no file backs"
        lines.append(f"{place.value / total:6.1%}  {place.reason}, in {where}")
    if total < FEW_SAMPLES:
        lines.append("these are few: the process was hardly on a CPU")
    return [*lines, *check.notes]

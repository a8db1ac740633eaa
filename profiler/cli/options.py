"""Options that several commands share, and the types that check them."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., object])

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
LONGEST_S = 30 * 24 * 3600
SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class Seconds(click.ParamType[float]):
    """A length of time: 30, 0.5, 500ms, 2m."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = DURATION.fullmatch(str(value))
        seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{value!r} is not a length of time; write seconds, or 500ms, 2m, 1h", param, ctx)
        return seconds


class Numbers(click.ParamType[tuple[int, ...]]):
    """Process or thread ids, separated by commas."""

    name = "ids"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d{0,8}(,[1-9]\d{0,8})*", value):
            self.fail(f"{value!r} is not a list of ids; write 4057 or 4057,4058", param, ctx)
        return tuple(map(int, value.split(",")))


class CpuList(click.ParamType[tuple[int, ...]]):
    """CPU numbers: 0-3,8."""

    name = "cpus"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        from pyprof.profiler.proc import parse_cpu_list

        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", value):
            self.fail(f"{value!r} is not a list of CPUs; write 0 or 0-3,8", param, ctx)
        try:
            return parse_cpu_list(value)
        except ValueError as error:
            self.fail(f"{value!r} is not a list of CPUs: {error}", param, ctx)


def target_options(function: Decorated) -> Decorated:
    """Add the options that choose whose time is counted."""
    return _with(
        function,
        click.option("-p", "--pid", "pids", type=Numbers(), default=(), help="Only these processes."),
        click.option("-t", "-L", "--tid", "tids", type=Numbers(), default=(), help="Only these threads."),
        click.option("--cgroup", metavar="PATH", default="", help="Only below this cgroup (version 2)."),
        click.option("-C", "--cpu", "cpus", type=CpuList(), default=(), help="Only these CPUs: 0-3,8."),
        click.option("--comm", metavar="NAME", default="", help="Only threads of exactly this name."),
        click.option("-u", "--user-threads", is_flag=True, help="Leave the kernel's own threads out."),
        click.option("-k", "--kernel-threads", is_flag=True, help="Only the kernel's own threads."),
        click.option("-I", "--idle", is_flag=True, help="Count idle CPUs too."),
        click.option("--all-cpus", is_flag=True, hidden=True, help="The default; perf's -a."),
    )


def stack_options(function: Decorated) -> Decorated:
    """Add the options that choose which stacks are kept."""
    return _with(
        function,
        click.option("-U", "--user-stacks-only", is_flag=True, help="Leave kernel stacks out."),
        click.option("-K", "--kernel-stacks-only", is_flag=True, help="Leave user stacks out."),
        click.option(
            "--unwind",
            type=click.Choice(["auto", "dwarf", "fp"]),
            default="auto",
            show_default=True,
            help="How callers in user code are found: .eh_frame in the kernel, or frame pointers.",
        ),
        click.option(
            "--verify",
            metavar="N",
            type=click.IntRange(0, 100_000),
            default=0,
            help="Walk about N of the stacks a second time, in user space, and report the agreement.",
        ),
        click.option(
            "--max-depth",
            type=click.IntRange(1, 127),
            default=127,
            show_default=True,
            help="Keep this many frames of a stack, from its leaf.",
        ),
        click.option(
            "--stack-storage-size",
            type=click.IntRange(16, 1 << 20),
            help="Room for this many distinct stacks.  [default: enough for the duration, at most 32768]",
        ),
        click.option("-g", is_flag=True, hidden=True, expose_value=False, help="The default; perf's -g."),
    )


def drawing_options(function: Decorated) -> Decorated:
    """Add the options that say how a profile is drawn."""
    return _with(
        function,
        click.option("-o", "--output", metavar="FILE", help="Write here; - is standard output."),
        click.option(
            "--format",
            "format_name",
            type=click.Choice(["svg", "folded", "pprof", "txt", "json"]),
            help="Format, where the ending of FILE does not tell.",
        ),
        click.option("-f", "--folded", is_flag=True, help="Print folded stacks."),
        click.option("-d", "--delimited", is_flag=True, help="A `-` between user and kernel frames."),
        click.option("-a", "--annotate", is_flag=True, help="Mark kernel frames with _[k] in folded stacks."),
        click.option("--pids", "show_pids", is_flag=True, help="Tell processes of one name apart."),
        click.option("--title", metavar="TEXT", default="", help="Title of the picture."),
        click.option("--inverted", is_flag=True, help="Draw the root at the top."),
        click.option("--width", type=click.IntRange(300, 100_000), default=1200, help="Width in pixels."),
    )


def _with(function: Decorated, *options: Callable[[Decorated], Decorated]) -> Decorated:
    for option in reversed(options):
        function = option(function)
    return function

"""`pyprof cpu`: where the CPU time goes."""

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pyprof.profiler.cli.options import Seconds, drawing_options, stack_options, target_options

if TYPE_CHECKING:
    from pyprof.profiler.cli.formats import Drawing
    from pyprof.profiler.engine import SamplingEngine
    from pyprof.profiler.interrupts import Interrupts
    from pyprof.profiler.profile import Profile
    from pyprof.profiler.resolve import Unnamed
    from pyprof.profiler.settings import Settings, Targets
    from pyprof.profiler.watch import End

COMMAND = "pyprof.command"
DEFAULT_FREQUENCY_HZ = 49
SHORTEST_PERIOD_NS = 10_000  # kernel/events/core.c: perf_swevent_start_hrtimer


class WithCommand(click.Command):
    """A command whose words after `--` are another command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        split = args.index("--") if "--" in args else len(args)
        ctx.meta[COMMAND] = tuple(args[split + 1 :])
        if split == len(args) - 1:
            raise click.UsageError("no command after `--`", ctx)
        return super().parse_args(ctx, args[:split])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


@click.command(cls=WithCommand)
@click.argument("duration", type=Seconds(), required=False)
@click.option("--duration", "duration_option", type=Seconds(), help="The same as DURATION.")
@click.option(
    "-F", "--frequency", type=click.IntRange(1, 100_000), help="Samples a second and CPU.  [default: 49]"
)
@click.option(
    "-c",
    "--count",
    type=click.IntRange(1, (1 << 63) - 1),
    help="Sample each COUNT events (ns for clocks) instead.",
)
@click.option(
    "-e", "--event", default="cpu-clock", show_default=True, help="Event to sample: cycles, page-faults, ..."
)
@target_options
@click.option("--threads", "per_thread", is_flag=True, help="Tell the threads of a process apart.")
@stack_options
@drawing_options
@click.option("--no-symbols", is_flag=True, help="Keep addresses; `pyprof render` names them later.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "libbpf"]),
    default="auto",
    help="What loads the BPF program.  [default: auto]",
)
@click.option("-q", "--quiet", is_flag=True, help="Nothing on standard error but errors.")
@click.option("--debug", is_flag=True, help="With an error, show the kernel's own words.")
@click.pass_context
def cpu(context: click.Context, /, duration: float | None, **options: Any) -> int:
    """Sample what runs on the CPUs and draw it as a flame graph.

    DURATION is in seconds (or 500ms, 2m); without it the capture goes on until Ctrl-C, which is its
    normal end, or until the command ends. A second Ctrl-C skips symbols, a third gives up.

    \b
    pyprof cpu 30 -o cpu.svg          every process for 30 seconds
    pyprof cpu -F 99 -p 4057 10       one process, 99 samples a second
    pyprof cpu -o make.svg -- make    a command and its children
    pyprof cpu -f 10 | less           folded stacks

    Letters are those of bcc's profile. Coming from perf record: -F, -p, -t, -C, -e, -o and -- mean the
    same; -a is on by default and marks kernel frames here; -g is always on.
    """
    from pyprof.profiler.interrupts import Interrupts

    with Interrupts() as interrupts:  # before the other imports: a signal in one of them must not break it
        from pyprof.profiler.cli.deliver import check
        from pyprof.profiler.cli.formats import drawing_of
        from pyprof.profiler.cli.report import quality_code

        drawing = drawing_of(options, tids=options["per_thread"])
        settings = _settings(context.meta[COMMAND], duration, options)
        check(drawing)
        profile, end = _captured(settings, drawing, interrupts, options)
    code = quality_code(profile)
    return code or _signal_code(end, settings, interrupts)


def _settings(command: tuple[str, ...], duration: float | None, options: dict[str, Any]) -> "Settings":
    from pyprof.profiler.cpu import default_period
    from pyprof.profiler.settings import Settings, Unwind

    if options["user_stacks_only"] and options["kernel_stacks_only"]:
        raise click.UsageError("-U and -K exclude each other; leave both out for whole stacks")
    if duration is not None and options["duration_option"] is not None:
        raise click.UsageError("DURATION was given twice")
    frequency_hz = _frequency_hz(options)
    return Settings(
        event=options["event"],
        period=options["count"] or default_period(options["event"], frequency_hz),
        frequency_hz=frequency_hz,
        duration_s=duration if duration is not None else options["duration_option"],
        targets=_targets(command, options),
        command=command,
        user_stacks=not options["kernel_stacks_only"],
        kernel_stacks=not options["user_stacks_only"],
        per_thread=options["per_thread"],
        max_depth=options["max_depth"],
        unwind=Unwind(options["unwind"]),
        verify=options["verify"],
        stack_entries=options["stack_storage_size"],
    )


def _frequency_hz(options: dict[str, Any]) -> int:
    """Return the samples a second that are asked for; 0 when a period is, or the event has no rate."""
    from pyprof.profiler.cpu import has_rate
    from pyprof.profiler.perf_event import EVENTS, sampling_attr

    event, count = options["event"], options["count"]
    sampling_attr(event, 1)  # an unknown name ends here
    if options["frequency"] and count:
        raise click.UsageError("-F and -c exclude each other: samples a second, or events a sample")
    if options["frequency"] and not has_rate(event):
        raise click.UsageError(f"{event} has no rate: give -c, the number of events for one sample")
    if count and EVENTS[event].counts_ns and count < SHORTEST_PERIOD_NS:
        raise click.UsageError(f"-c {count}: the kernel's clocks tick every {SHORTEST_PERIOD_NS} ns at most")
    if count or not has_rate(event):
        return 0
    return int(options["frequency"] or DEFAULT_FREQUENCY_HZ)


def _targets(command: tuple[str, ...], options: dict[str, Any]) -> "Targets":
    from pyprof.profiler.settings import COMM_BYTES, Targets

    names = ("pids", "tids", "cgroup", "cpus", "comm", "user_threads", "kernel_threads", "idle")
    targets = Targets(**{name: options[name] for name in names})
    if targets.user_threads and targets.kernel_threads:
        raise click.UsageError("-u and -k exclude each other; leave both out for all threads")
    if targets.pids and targets.tids:
        raise click.UsageError("-p and -t exclude each other: processes, or threads")
    if command and (targets.pids or targets.tids or targets.idle):
        raise click.UsageError("a command is profiled with its children; leave -p, -t and -I out")
    if len(os.fsencode(targets.comm)) >= COMM_BYTES:
        raise click.UsageError(f"--comm takes at most {COMM_BYTES - 1} bytes: the kernel keeps no more")
    return targets


def _captured(
    settings: "Settings", drawing: "Drawing", interrupts: "Interrupts", options: dict[str, Any]
) -> "tuple[Profile, End]":
    """Capture, name, draw and write; return the profile and why the capture ended."""
    from pyprof.profiler.cli.deliver import deliver
    from pyprof.profiler.cli.report import Progress
    from pyprof.profiler.session import CpuSession

    progress = Progress(settings.duration_s, quiet=options["quiet"])
    names = _Names(wants_user_names=not options["no_symbols"] and settings.user_stacks)
    with CpuSession(settings, _engine()) as session:
        try:
            outcome = session.run(
                interrupts,
                idle_work=[
                    names.load_kernel,
                    names.load_user,
                    progress.load,
                    partial(_load_renderer, drawing),
                ],
                on_progress=progress.show,
            )
        finally:
            progress.close()
        profile = names.named(outcome.unnamed, interrupts)
    deliver(profile, drawing, quiet=options["quiet"])
    return profile, outcome.end


class _Names:
    """What names need, loaded while the capture runs: nothing heavy delays the first sample."""

    def __init__(self, *, wants_user_names: bool) -> None:
        self._wants_user_names = wants_user_names
        self._kernel: Any = None

    def load_kernel(self) -> None:
        from pyprof.symbolize.kallsyms import kernel_symbols

        self._kernel = kernel_symbols()

    def load_user(self) -> None:
        if self._wants_user_names:
            import pyprof.profiler.name
            import pyprof.symbolize.elf  # noqa: F401 - inherited by the worker, which is forked

    def named(self, unnamed: "Unnamed", interrupts: "Interrupts") -> "Profile":
        """Return the profile with names; a second signal keeps the addresses that have none yet."""
        from pyprof.profiler.interrupts import SymbolsSkipped
        from pyprof.profiler.name import (
            is_unnamed_kernel,
            with_build_ids,
            with_kernel_names,
            with_user_names,
        )

        if self._kernel is None:
            self.load_kernel()
        profile = with_kernel_names(unnamed.profile, self._kernel)
        if any(map(is_unnamed_kernel, profile.frames)):  # a BPF program or module came meanwhile
            self.load_kernel()
            profile = with_kernel_names(profile, self._kernel)
        look_up = with_user_names if self._wants_user_names else with_build_ids
        try:
            with interrupts.skipping_symbols():
                return look_up(unnamed._replace(profile=profile))
        except SymbolsSkipped:
            return profile


def _load_renderer(drawing: "Drawing") -> None:
    from pyprof.profiler.cli.formats import rendered
    from pyprof.profiler.profile import Profile

    rendered(Profile(unit="samples", samples=(), frames=()), drawing)


def _engine() -> "SamplingEngine":
    from pyprof.profiler.libbpf_engine import LibbpfEngine

    return LibbpfEngine()


def _signal_code(end: "End", settings: "Settings", interrupts: "Interrupts") -> int:
    """Return 128+n when a signal ended the capture early; Ctrl-C is the normal end of an open one."""
    import signal

    from pyprof.profiler.watch import End

    if end is not End.SIGNAL:
        return 0
    number = interrupts.received[0]
    is_normal = number == signal.SIGINT and settings.duration_s is None and not settings.command
    return 0 if is_normal else 128 + number

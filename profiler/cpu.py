"""CPU captures: timed sampling of what runs, from the first event to the Capture."""

import errno
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyprof.profiler import perf_event, proc
from pyprof.profiler.capture import Capture
from pyprof.profiler.diagnosis import machine_state, refusal
from pyprof.profiler.engine import Counts, SamplingEngine, Stats, Target
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.libbpf import LibbpfError
from pyprof.profiler.process_table import ProcessTable
from pyprof.profiler.profile import Loss, Provenance, Quality
from pyprof.profiler.settings import NS_PER_SECOND, Settings
from pyprof.profiler.tracker import Tracker, boottime_ns
from pyprof.profiler.user_stacks import UserStacks
from pyprof.profiler.version import pyprof_version
from pyprof.profiler.watch import Source

DEFAULT_FREQUENCY_HZ = 49
PERF_MAX_STACK = 127


@dataclass(slots=True)
class SampledCpu:
    """A CPU while it is sampled."""

    event_fd: int
    idle_before_ns: int  # since boot, when sampling began
    enabled_ns: int = 0  # how long the event had run, at the last look


class CpuSampler:
    """Samples on-CPU time from `start` to `finish`.

    Raises: ProfilerError from each method, with the cause and the remedy.
    """

    def __init__(self, settings: Settings, engine: SamplingEngine) -> None:
        self.notes: list[str] = []
        self.settings = self._with_usable_event(self._with_usable_depth(settings))
        self._engine = engine
        self._cpus: dict[int, SampledCpu] = {}
        self._expected_ticks = 0.0
        self._started_unix_ns = self._started_ns = 0
        self._sampled_cpus: set[int] = set()
        self._refused_cpus: set[int] = set()
        online = proc.online_cpus()
        self._wanted_cpus = frozenset(settings.targets.cpus)
        absent = sorted(self._wanted_cpus - set(online))
        if absent:
            raise ProfilerError(f"CPU {absent[0]} is not online; online are: {_list(online)}", ExitCode.USAGE)
        self.tracker = _opened(lambda: Tracker(online), "follow processes")
        self._user_stacks = UserStacks(self.settings, self.tracker)

    @property
    def sources(self) -> list[Source]:
        """Return where work arrives from while sampling goes on."""
        return [self.tracker, *self._user_stacks.sources]

    @property
    def is_settling(self) -> bool:
        """Return whether samples still wait for what their stacks are walked by."""
        return self._user_stacks.is_settling

    def start(self, targets: Sequence[Target]) -> None:
        """Load the program and begin to sample."""
        online = proc.online_cpus()
        sampled = [cpu for cpu in online if not self._wanted_cpus or cpu in self._wanted_cpus]
        try:
            self.settings = self._user_stacks.load(self._engine, self.settings, len(sampled))
            self._engine.add_targets(targets)
        except LibbpfError as error:
            what = "load the sampling program"
            raise refusal(error.errno, what, machine_state(), detail=error.detail) from error
        self._started_unix_ns, self._started_ns = time.time_ns(), boottime_ns()
        idle = proc.idle_ns()
        for cpu in sampled:
            self._attach(cpu, idle.get(cpu, 0))
        if not self._cpus:
            raise ProfilerError("no CPU could be sampled; `pyprof doctor` tells what works here")
        self._user_stacks.begin(targets, self.settings.command)

    def follow_cpus(self) -> None:
        """Begin with CPUs that came online since the last call, and end with those that went."""
        online = set(proc.online_cpus())
        stopped = {cpu for cpu, state in self._cpus.items() if self._has_stopped(state)}
        if online == self.tracker.cpus | self._refused_cpus and not stopped:
            return
        idle = proc.idle_ns()
        for cpu in sorted(stopped & online):  # it was away for less than a second
            self.tracker.remove_cpu(cpu)
            self._detach(cpu, idle)
            self._begin_later(cpu, idle, "was offline for a moment")
        for cpu in sorted(self.tracker.cpus - online):
            self.tracker.remove_cpu(cpu)
            if cpu in self._cpus:
                self._detach(cpu, idle)
            self.notes.append(f"CPU {cpu} went offline during the capture")
        for cpu in sorted(online - self.tracker.cpus - self._refused_cpus):
            self._begin_later(cpu, idle)

    def stats(self) -> Stats:
        """Return what happened to the ticks so far."""
        return self._engine.stats()

    def finish(self, notes: Sequence[str] = ()) -> Capture:
        """Stop sampling, read the maps and return the capture, `notes` added to its provenance.

        `tracker.binaries` stays open.
        """
        duration_ns = boottime_ns() - self._started_ns
        idle = proc.idle_ns()
        for cpu in list(self._cpus):
            self._detach(cpu, idle)
        self._engine.detach_all()
        self._user_stacks.stop()
        counts = self._engine.read()
        unread = {sample.pid for sample in counts.samples if sample.user_stack} - self.tracker.snapshotted
        self.tracker.snapshot(sorted(unread - {0}))  # of those that still live
        table = self.tracker.finish()
        counts = self._user_stacks.complete(
            counts,
            lambda one: table.find(one.pid, one.start_ns, one.image_ns or self._started_ns),
            self.settings,
        )
        self._engine.close()
        self.notes += [
            *self._user_stacks.notes,
            *gap_notes(table, counts.stats, self.tracker.binaries.unopened),
            *notes,
        ]
        return Capture(
            samples=counts.samples,
            stacks=counts.stacks,
            executables=self._user_stacks.executables,
            execs_since_ns=self._started_ns,
            processes=table,
            max_depth=self.settings.max_depth,
            quality=self._quality(counts),
            provenance=self._provenance(duration_ns),
        )

    def close(self) -> None:
        """Let go of everything; after `finish` too."""
        self._user_stacks.close()
        self._engine.close()
        self.tracker.close()

    def _attach(self, cpu: int, idle_ns: int) -> None:
        attr = perf_event.sampling_attr(self.settings.event, self.settings.period)
        self._user_stacks.prepare_event(attr)
        try:
            event_fd = perf_event.open_event(attr, cpu=cpu)
            try:
                self._user_stacks.add_cpu(cpu, event_fd)
            except OSError:
                os.close(event_fd)
                raise
        except OSError as error:
            if error.errno == errno.ENODEV:  # it went offline just now
                return
            raise refusal(
                error.errno or 0, f"sample {self.settings.event} on CPU {cpu}", machine_state()
            ) from error
        self._engine.attach(cpu, event_fd)
        self._cpus[cpu] = SampledCpu(event_fd, idle_ns)
        self._sampled_cpus.add(cpu)

    def _has_stopped(self, state: SampledCpu) -> bool:
        """Return whether the event has not run since the last call: a CPU that goes takes it along."""
        before_ns, state.enabled_ns = state.enabled_ns, perf_event.event_times(state.event_fd).enabled_ns
        return state.enabled_ns == before_ns

    def _begin_later(self, cpu: int, idle: dict[int, int], what: str = "came online") -> None:
        try:
            self.tracker.add_cpu(cpu)
            if not self._wanted_cpus or cpu in self._wanted_cpus:
                self._attach(cpu, idle.get(cpu, 0))
        except (OSError, ProfilerError) as error:
            self._refused_cpus.add(cpu)
            self.notes.append(f"CPU {cpu} {what} and could not be sampled: {error}")
            return
        self.notes.append(f"CPU {cpu} {what} during the capture")

    def _detach(self, cpu: int, idle: dict[int, int]) -> None:
        state = self._cpus.pop(cpu)
        count = perf_event.event_times(state.event_fd).value  # of a clock: how long the event ran
        if perf_event.EVENTS[self.settings.event].counts_ns:
            count -= max(idle.get(cpu, state.idle_before_ns) - state.idle_before_ns, 0)
        self._expected_ticks += max(count, 0) / self.settings.period
        self._user_stacks.remove_cpu(cpu)
        self._engine.detach(cpu)

    def _quality(self, counts: Counts) -> Quality:
        stats = counts.stats
        losses = [
            Loss("count map full", stats.lost_counts, kept=True),
            Loss("stack map full", stats.lost_stacks, kept=True),
            Loss("stack hash collision", stats.collisions, kept=True),
        ]
        return Quality(
            expected=self._expected(stats),
            taken=stats.taken,
            counted=stats.counted + stats.lost_counts,
            idle=stats.idle,
            excluded=stats.excluded + stats.own,
            losses=tuple(sorted(loss for loss in losses if loss.value)),
            verified=self._user_stacks.verified,
            agreed=self._user_stacks.agreed,
        )

    def _expected(self, stats: Stats) -> int:
        """Return how many ticks busy CPUs owed; 0 when that cannot be told."""
        if self.settings.targets.idle:
            return 0
        if perf_event.EVENTS[self.settings.event].counts_ns:
            return round(self._expected_ticks)
        return max(round(self._expected_ticks) - stats.idle, 0)  # the idle task's events were counted in

    def _provenance(self, duration_ns: int) -> Provenance:
        settings = self.settings
        command = [f"command {Path(settings.command[0]).name}"] if settings.command else []
        return Provenance(
            mode="cpu",
            event=settings.event,
            period=settings.period,
            frequency_hz=settings.frequency_hz,
            started_unix_ns=self._started_unix_ns,
            duration_ns=duration_ns,
            host=platform.node(),
            kernel=platform.release(),
            cpus=len(self._sampled_cpus),
            engine=self._engine.name,
            unwind=settings.unwind.value if settings.user_stacks else "",
            targets=", ".join(command) or settings.targets.description,
            version=pyprof_version(),
            notes=tuple(self.notes),
        )

    def _with_usable_depth(self, settings: Settings) -> Settings:
        allowed = proc.sysctl("kernel.perf_event_max_stack", PERF_MAX_STACK)
        return replace(settings, max_depth=min(settings.max_depth, allowed))

    def _with_usable_event(self, settings: Settings) -> Settings:
        """Return the settings, with cpu-clock in place of a hardware event that is not there."""
        attr = perf_event.sampling_attr(settings.event, settings.period)
        try:
            os.close(perf_event.open_event(attr, cpu=proc.online_cpus()[0]))
        except OSError as error:
            if settings.event not in perf_event.HARDWARE_EVENTS or not perf_event.is_unsupported(error):
                what = f"sample {settings.event}"
                raise refusal(error.errno or 0, what, machine_state()) from error
        else:
            return settings
        frequency_hz = settings.frequency_hz or DEFAULT_FREQUENCY_HZ
        self.notes.append(
            f"no hardware counter for {settings.event} here: sampled cpu-clock at {frequency_hz} Hz instead"
        )
        period_ns = NS_PER_SECOND // frequency_hz
        return replace(settings, event="cpu-clock", period=period_ns, frequency_hz=frequency_hz)


def gap_notes(table: ProcessTable, stats: Stats, unopened: int) -> list[str]:
    """Return what is missing of what processes did, one sentence each; nothing where nothing is."""
    gaps = (
        (table.lost_events, "process events were lost: frames of some processes may be missing or wrong"),
        (table.dropped, "ended processes were forgotten to bound memory: their frames have no name"),
        (stats.execs_missed, "execs could not be noted: some frames may be of the image before"),
        (stats.forks_missed, "child processes could not be followed: too many at once"),
        (unopened, "binaries could not be held open: the limit on open files is reached"),
    )
    return [f"{number} {what}" for number, what in gaps if number]


def default_period(event: str, frequency_hz: int) -> int:
    """Return the period that gives about `frequency_hz` samples a second on a busy CPU.

    Nanoseconds for clocks; cycles at the CPU's highest clock rate. Other events have no rate: one
    sample for 100,000 occurrences counted by hardware, for each one counted by the kernel.
    """
    if perf_event.EVENTS[event].counts_ns:
        return NS_PER_SECOND // frequency_hz
    if has_rate(event):
        return _highest_clock_hz() // frequency_hz
    return 100_000 if event in perf_event.HARDWARE_EVENTS else 1


def has_rate(event: str) -> bool:
    """Return whether samples a second mean something for the event."""
    return perf_event.EVENTS[event].counts_ns or event in {"cycles", "instructions"}


def _highest_clock_hz() -> int:
    try:
        return int(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()) * 1000
    except (OSError, ValueError):
        return 3 * NS_PER_SECOND


def _opened(make: Callable[[], Tracker], what: str) -> Tracker:
    try:
        return make()
    except OSError as error:
        raise refusal(error.errno or 0, what, machine_state()) from error


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))

"""What a capture needs, each tried for real on this machine.

The words are those of `diagnosis`, so that a failing capture and the doctor say the same.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from pyprof.profiler import perf_event, proc
from pyprof.profiler.diagnosis import cause, machine_state
from pyprof.profiler.errors import ProfilerError
from pyprof.profiler.settings import NS_PER_SECOND, Settings, Targets

TRIAL_S = 0.2
TRIAL_HZ = 997
OK, DEGRADED, MISSING = "ok", "degraded", "missing"


class Check(NamedTuple):
    """One thing that was tried."""

    name: str
    state: str  # OK; DEGRADED: captures work with less; MISSING: they do not
    finding: str
    remedy: str = ""  # what to do, "" when nothing is wrong


def checks() -> list[Check]:
    """Return every check, in the order in which a capture needs them."""
    tried: tuple[Callable[[], Check], ...] = (
        _privileges,
        _btf,
        _libbpf,
        _perf_events,
        _process_events,
        _sampling,
        _hardware_events,
        _kernel_symbols,
        _stack_depth,
        _lockdown,
        _cgroups,
    )
    return [check() for check in tried]


def is_usable(results: list[Check]) -> bool:
    """Return whether CPU captures work."""
    return all(result.state != MISSING for result in results)


def _privileges() -> Check:
    state = machine_state()
    if state.may_profile:
        return Check("privileges", OK, "root" if os.geteuid() == 0 else "CAP_BPF and CAP_PERFMON")
    remedy = f"kernel.perf_event_paranoid={state.paranoid}. Try: sudo pyprof ..."
    return Check("privileges", MISSING, "pyprof needs root (or CAP_BPF and CAP_PERFMON)", remedy)


def _btf() -> Check:
    if machine_state().has_btf:
        return Check("BTF", OK, "/sys/kernel/btf/vmlinux")
    remedy = "use a kernel built with CONFIG_DEBUG_INFO_BTF (5.10 and later of every large distribution)"
    return Check("BTF", MISSING, "the kernel does not describe its types", remedy)


def _libbpf() -> Check:
    from pyprof.profiler.libbpf import Library  # noqa: PLC0415 - loads a shared library

    try:
        return Check("libbpf", OK, f"libbpf.so.1, version {Library().version}")
    except ProfilerError as error:
        return Check("libbpf", MISSING, str(error), "on Debian: apt-get install libbpf1")


def _perf_events() -> Check:
    attr = perf_event.sampling_attr("cpu-clock", NS_PER_SECOND // TRIAL_HZ)
    return _tried("perf events", "cpu-clock on every CPU", lambda cpu: perf_event.open_event(attr, cpu=cpu))


def _process_events() -> Check:
    from pyprof.profiler.sideband import open_event  # noqa: PLC0415 - only doctor opens it alone

    return _tried("process events", "forks, execs and mappings are followed", open_event)


def _tried(name: str, finding: str, open_on: Callable[[int], int]) -> Check:
    try:
        for cpu in proc.online_cpus():
            os.close(open_on(cpu))
    except OSError as error:
        return Check(name, MISSING, cause(error.errno or 0, f"open {name}", machine_state()))
    return Check(name, OK, finding)


def _sampling() -> Check:
    """Sample this process's own CPU time and look for the ticks."""
    from pyprof.profiler.cpu import CpuSampler  # noqa: PLC0415 - loads a shared library
    from pyprof.profiler.libbpf_engine import LibbpfEngine  # noqa: PLC0415

    settings = Settings(
        period=NS_PER_SECOND // TRIAL_HZ, frequency_hz=TRIAL_HZ, duration_s=TRIAL_S, targets=Targets()
    )
    try:
        sampler = CpuSampler(settings, LibbpfEngine())
        try:
            sampler.start([])
            _spin(TRIAL_S)
            ticks = sampler.stats().own
        finally:
            sampler.close()
    except ProfilerError as error:
        return Check("sampling", MISSING, str(error), error.detail.strip())
    expected = round(TRIAL_S * TRIAL_HZ)
    finding = f"{ticks} of {expected} ticks came in {TRIAL_S} s at {TRIAL_HZ} Hz"
    if ticks == 0:
        return Check("sampling", MISSING, finding, "the timer does not fire: is the machine's clock virtual?")
    if ticks < expected * 0.8:
        remedy = "the machine is busy or the kernel throttles; see kernel.perf_cpu_time_max_percent"
        return Check("sampling", DEGRADED, finding, remedy)
    return Check("sampling", OK, finding)


def _spin(seconds: float) -> None:
    limit_s = time.process_time() + seconds
    while time.process_time() < limit_s:
        pass


def _hardware_events() -> Check:
    attr = perf_event.sampling_attr("cycles", 1_000_000)
    try:
        os.close(perf_event.open_event(attr, cpu=proc.online_cpus()[0]))
    except OSError:
        return Check("hardware counters", DEGRADED, "none here: -e cycles samples cpu-clock instead")
    return Check("hardware counters", OK, "cycles")


def _kernel_symbols() -> Check:
    from pyprof.symbolize.kallsyms import kernel_symbols  # noqa: PLC0415 - loads numpy

    hidden = kernel_symbols().hidden
    if hidden:
        return Check("kernel symbols", DEGRADED, hidden)
    return Check("kernel symbols", OK, "/proc/kallsyms tells addresses")


def _stack_depth() -> Check:
    depth = proc.sysctl("kernel.perf_event_max_stack", 127)
    if depth >= 127:
        return Check("stack depth", OK, "127 frames")
    finding = f"kernel.perf_event_max_stack={depth}: deeper stacks are cut and marked"
    return Check("stack depth", DEGRADED, finding, "sysctl kernel.perf_event_max_stack=127")


def _lockdown() -> Check:
    state = machine_state().lockdown
    if state != "confidentiality":
        return Check("lockdown", OK, state or "the kernel has none")
    return Check("lockdown", DEGRADED, "confidentiality (Secure Boot policy): CPU profiling works")


def _cgroups() -> Check:
    mounts = [line.split() for line in _text("/proc/self/mounts").splitlines()]
    places = [fields[1] for fields in mounts if len(fields) > 2 and fields[2] == "cgroup2"]
    if places:
        return Check("cgroups", OK, f"version 2 at {places[0]}")
    return Check("cgroups", DEGRADED, "no cgroup of version 2 is mounted: --cgroup does not work")


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""

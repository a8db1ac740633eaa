"""Why the kernel refused: from an errno and the machine's state to one line for the user.

The same errno has many causes, so the cause is read from the state of the machine, not guessed from
the number.

Source: capabilities(7), perf_event_open(2), kernel_lockdown(7), Documentation/admin-guide/sysctl.
"""

import errno
from pathlib import Path
from typing import NamedTuple

from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.proc import sysctl

CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
SECCOMP_FILTER = 2


class MachineState(NamedTuple):
    """What decides whether this process may profile."""

    capabilities: int  # CapEff, a bit mask
    seccomp: int  # 2: a filter is active
    paranoid: int  # kernel.perf_event_paranoid
    lockdown: str  # "none", "integrity", "confidentiality"; "" when the kernel has no lockdown
    has_btf: bool

    @property
    def may_profile(self) -> bool:
        """Return whether the capabilities suffice: CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON."""
        has = {bit for bit in (CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF) if self.capabilities >> bit & 1}
        return CAP_SYS_ADMIN in has or {CAP_PERFMON, CAP_BPF} <= has


def machine_state(*, proc: str = "/proc", sys: str = "/sys") -> MachineState:
    """Return the state as the kernel tells it now."""
    status = dict(line.partition(":")[::2] for line in _text(f"{proc}/self/status").splitlines())
    chosen = [word for word in _text(f"{sys}/kernel/security/lockdown").split() if word.startswith("[")]
    return MachineState(
        int(status.get("CapEff", "0").strip() or "0", 16),
        int(status.get("Seccomp", "0")),
        sysctl("kernel.perf_event_paranoid", 2, proc=proc),
        chosen[0].strip("[]") if chosen else "",
        Path(f"{sys}/kernel/btf/vmlinux").exists(),
    )


def refusal(number: int, what: str, state: MachineState, *, detail: str = "") -> ProfilerError:
    """Return the error for a refused system call: cause and remedy, exit code 77.

    `what` is what was tried, in words: "sample cpu-clock on CPU 3".
    """
    return ProfilerError(cause(number, what, state), ExitCode.CANNOT_PROFILE, detail)


def cause(number: int, what: str, state: MachineState) -> str:  # noqa: PLR0911 - one return for each cause
    """Return why `what` failed with this errno, and what to do, in one line."""
    if number in {errno.EMFILE, errno.ENFILE}:
        return f"cannot {what}: too many open files; raise the limit: ulimit -n 65536"
    if number == errno.ENOMEM:
        return f"cannot {what}: not enough memory; try a smaller --stack-storage-size"
    if number in REFUSALS and state.seccomp == SECCOMP_FILTER:
        return (
            f"cannot {what}: blocked by the container's seccomp profile; "
            "add --cap-add PERFMON --cap-add BPF (and SYS_PTRACE) and --pid=host"
        )
    if number in REFUSALS and not state.may_profile:
        return (
            "pyprof needs root (or CAP_BPF and CAP_PERFMON): "
            f"kernel.perf_event_paranoid={state.paranoid}. Try: sudo pyprof ..."
        )
    if not state.has_btf:
        return (
            f"cannot {what}: this kernel has no BTF (/sys/kernel/btf/vmlinux); "
            "use a kernel built with CONFIG_DEBUG_INFO_BTF"
        )
    if state.lockdown == "confidentiality":
        return (
            f"cannot {what}: kernel lockdown is 'confidentiality' (Secure Boot policy); "
            "boot with lockdown=integrity to allow it"
        )
    name = errno.errorcode.get(number, str(number))
    return f"cannot {what}: {name}; `pyprof doctor` tells what works here, --debug shows the kernel's words"


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""

"""The cause of a refusal is read from the machine's state and told in one line with a remedy."""

import errno
from collections.abc import Callable

import pytest

from pyprof.profiler.diagnosis import (
    CAP_BPF,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    MachineState,
    cause,
    machine_state,
    refusal,
)
from pyprof.profiler.errors import ExitCode

Machine = Callable[..., dict[str, str]]

BOTH = 1 << CAP_BPF | 1 << CAP_PERFMON
CONFIDENTIAL = "none integrity [confidentiality]"
PRIVILEGES = (
    "pyprof needs root (or CAP_BPF and CAP_PERFMON): kernel.perf_event_paranoid=3. Try: sudo pyprof ..."
)
SECCOMP = (
    "cannot sample: blocked by the container's seccomp profile; "
    "add --cap-add PERFMON --cap-add BPF (and SYS_PTRACE) and --pid=host"
)
NO_BTF = (
    "cannot sample: this kernel has no BTF (/sys/kernel/btf/vmlinux); "
    "use a kernel built with CONFIG_DEBUG_INFO_BTF"
)
FILES = "cannot sample: too many open files; raise the limit: ulimit -n 65536"
MEMORY = "cannot sample: not enough memory; try a smaller --stack-storage-size"
UNKNOWN = "cannot sample: {}; `pyprof doctor` tells what works here, --debug shows the kernel's words"


def told(number: int, folders: dict[str, str]) -> str:
    return cause(number, "sample", machine_state(**folders))


def test_state_is_read_from_proc_and_sys(machine: Machine) -> None:
    folders = machine(capabilities=BOTH, seccomp=2, paranoid=4, lockdown=CONFIDENTIAL, has_btf=False)
    assert machine_state(**folders) == MachineState(BOTH, 2, 4, "confidentiality", False)


def test_state_of_a_machine_that_tells_nothing_allows_nothing(tmp_path: object) -> None:
    state = machine_state(proc=f"{tmp_path}/proc", sys=f"{tmp_path}/sys")
    assert state == MachineState(0, 0, 2, "", False)
    assert not state.may_profile


@pytest.mark.parametrize(
    ("capabilities", "suffice"),
    [
        (0, False),
        (1 << CAP_BPF, False),
        (1 << CAP_PERFMON, False),
        (BOTH, True),
        (1 << CAP_SYS_ADMIN, True),
        ((1 << 64) - 1 ^ BOTH ^ 1 << CAP_SYS_ADMIN, False),
    ],
)
def test_capabilities_that_suffice(capabilities: int, suffice: bool, machine: Machine) -> None:
    assert machine_state(**machine(capabilities=capabilities)).may_profile == suffice


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize("has_btf", [True, False])
def test_missing_privileges_are_told_with_the_setting(number: int, has_btf: bool, machine: Machine) -> None:
    assert told(number, machine(capabilities=0, paranoid=3, has_btf=has_btf)) == PRIVILEGES


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize("capabilities", [0, 1 << CAP_SYS_ADMIN])
def test_seccomp_filter_is_told_before_missing_capabilities(
    number: int, capabilities: int, machine: Machine
) -> None:
    assert told(number, machine(capabilities=capabilities, seccomp=2)) == SECCOMP


def test_seccomp_filter_is_not_blamed_for_what_it_cannot_cause(machine: Machine) -> None:
    assert told(errno.ENOMEM, machine(seccomp=2)) == MEMORY


def test_strict_seccomp_is_no_filter(machine: Machine) -> None:
    assert "seccomp" not in told(errno.EPERM, machine(seccomp=1))


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOENT, errno.EINVAL])
def test_kernel_without_btf_is_told(number: int, machine: Machine) -> None:
    assert told(number, machine(has_btf=False)) == NO_BTF


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_lockdown_is_told(number: int, machine: Machine) -> None:
    assert told(number, machine(lockdown=CONFIDENTIAL)).startswith(
        "cannot sample: kernel lockdown is 'confidentiality' (Secure Boot policy)"
    )


@pytest.mark.parametrize(
    "lockdown", ["", "[none] integrity confidentiality", "none [integrity] confidentiality"]
)
def test_lockdown_that_allows_profiling_is_not_blamed(lockdown: str, machine: Machine) -> None:
    assert told(errno.EPERM, machine(lockdown=lockdown)) == UNKNOWN.format("EPERM")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_descriptor_limit_is_told(number: int, machine: Machine) -> None:
    assert told(number, machine()) == FILES


def test_lack_of_memory_is_told(machine: Machine) -> None:
    assert told(errno.ENOMEM, machine()) == MEMORY


@pytest.mark.parametrize(("number", "expected"), [(errno.EMFILE, FILES), (errno.ENOMEM, MEMORY)])
def test_exhausted_resource_is_told_under_lockdown_too(number: int, expected: str, machine: Machine) -> None:
    assert told(number, machine(lockdown=CONFIDENTIAL)) == expected


@pytest.mark.parametrize(
    ("number", "name"), [(errno.EINVAL, "EINVAL"), (errno.EPERM, "EPERM"), (4001, "4001")]
)
def test_unknown_cause_names_the_error_and_the_doctor(number: int, name: str, machine: Machine) -> None:
    assert told(number, machine()) == UNKNOWN.format(name)


@pytest.mark.parametrize(
    "state",
    [
        {"capabilities": 0},
        {"seccomp": 2},
        {"has_btf": False},
        {"lockdown": CONFIDENTIAL},
        {},
    ],
)
def test_every_message_is_one_line_with_a_next_step(state: dict[str, object], machine: Machine) -> None:
    message = told(errno.EPERM, machine(**state))
    assert "\n" not in message
    assert "; " in message or "Try: " in message


def test_refusal_cannot_profile_and_keeps_the_kernels_words(machine: Machine) -> None:
    error = refusal(errno.ENOMEM, "sample", machine_state(**machine()), detail="libbpf: words\n")
    assert (str(error), error.exit_code, error.detail) == (MEMORY, ExitCode.CANNOT_PROFILE, "libbpf: words\n")

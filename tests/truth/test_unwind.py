"""User stacks from unwind tables, frame by frame, against programs whose stacks are known.

A truth is a pattern for the whole user stack, root first and joined with ";". It begins below main, at the
process's or the thread's entry point: a stack that ends early matches no truth.
"""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from elftools.elf.elffile import ELFFile

from pyprof.symbolize.frame import FrameKind

pytestmark = pytest.mark.bpf

# mypy: disable-error-code="no-untyped-def"

SECONDS = "0.5"
LEAF_SHARE = 0.95  # the rest is the start of the process, and reading the clock
DEEPEST = 127
OUTSIDE_COPY = "[truncated: stack larger than its copy]"
MAX_CUT_SHARE = 0.05  # 25 ms of half a second

# Distributions strip the names of what libc and libstdc++ do not export.
LIBC_NAMES = r"(__)?(libc_start_\w+|clone3?|start_thread|gsignal|raise|GI_raise|pthread_kill[\w.]*)"
LIBC = rf"(\[libc\.so\.6\+0x[0-9a-f]+\]|{LIBC_NAMES})"
RESTORER = r"(\[[^;+]+\+0x[0-9a-f]+\]|__restore_rt)"
CXX_NAMES = r"__cxa_throw|__cxa_end_catch|__cxxabiv1::\w+|std::terminate|__gxx_exception_cleanup"
CXX = rf"(\[libstdc\+\+[^;]+\]|{CXX_NAMES})"
LINKER = r"\[ld-linux[^;]+\]"
MAIN = rf"_start(;{LIBC}){{1,2}};main"
THREAD = rf"{LIBC};{LIBC}"
TURNS = ("descend_plain", "descend_array", "descend_saved")


class Stack(NamedTuple):
    """The user half of a sample's stack, root first, and its value."""

    names: tuple[str, ...]
    value: int


class Case(NamedTuple):
    """A sample program, how it is run, and the stacks that its leaf functions must have."""

    program: str
    kind: tuple[str, ...]
    truths: tuple[str, ...]  # each must be seen
    leaves: str = "spin"  # a pattern

    def __str__(self) -> str:
        return "-".join([self.program, *self.kind])


def recursion(depth: int) -> list[str]:
    """Return the frames between main and spin in samples/stacks/recursion.c."""
    return [TURNS[level % len(TURNS)] for level in range(depth)]


def from_main(*frames: str) -> str:
    return ";".join([MAIN, *frames])


def cases(programs: str, kind: str, *truths: str, leaves: str = "spin") -> list[Case]:
    """Return a case for each of the programs, which are separated by blanks."""
    return [Case(program, tuple(kind.split()), truths, leaves) for program in programs.split()]


DEEP = from_main(*recursion(60), "spin")
LIBRARY = from_main("library_call", "callback", "library_leaf")
ALARM = from_main("wait_for_signal", RESTORER, "on_signal", "spin")
RAISE = from_main("raise_signal", rf"{LIBC}(;{LIBC})*", RESTORER, "on_signal", "spin")
FAULT = from_main("call_fault", "fault", RESTORER, "on_fault", "spin")
OBJECT = from_main("catch_object", rf"{CXX}(;{CXX})*", "Object::~Object", "spin")
TERMINATE = from_main("no_catcher", "throw_number", rf"{CXX}(;{CXX})*", "on_terminate", "spin")
SIGNALS = "signals_O0 signals_O2 signals_static"
EXCEPTIONS = "exceptions_O0 exceptions_O2 exceptions_static"
LEFT = f"{THREAD};left_thread;left_work;spin"
RIGHT = f"{THREAD};right_thread;right_outer;right_inner;spin"
OFTEN = from_main("call_often")
STUBS = tuple(f"{OFTEN}{leaf}" for leaf in ("", ";library_tick", ";library_tick@plt"))
FRAMES_MADE = tuple(f"{OFTEN}{leaf}" for leaf in ("", ";save_all", ";save_all;save_none", ";grow"))

CASES = [
    *cases("recursion_O0 recursion_O2 recursion_nopie recursion_static recursion_fp", "60", DEEP),
    *cases("library_O0 library_O2", "", LIBRARY, leaves="library_leaf"),
    *cases("plt_lazy plt_now", "", *STUBS, leaves="call_often|library_tick(@plt)?"),
    *cases("prologues_O0 prologues_O2", "", *FRAMES_MADE, leaves="call_often|save_all|save_none|grow"),
    *cases(SIGNALS, "alarm", ALARM),
    *cases(SIGNALS, "alternate", ALARM),
    *cases(SIGNALS, "raise", RAISE),
    *cases(SIGNALS, "fault", FAULT),
    *cases("dynamic_O0 dynamic_O2", "", from_main("by_alloca", "by_array", "by_loop", "spin")),
    *cases(EXCEPTIONS, "destructor", from_main("catcher", "thrower", "Guard::~Guard", "spin")),
    *cases(EXCEPTIONS, "catch", from_main("in_catch", "spin")),
    *cases(EXCEPTIONS, "landing", from_main("catcher", "landing", "in_landing", "spin")),
    *cases(EXCEPTIONS, "object", OBJECT),
    *cases(EXCEPTIONS, "backtrace", from_main("trace", "_Unwind_Backtrace", "on_frame", "spin")),
    *cases(EXCEPTIONS, "terminate", TERMINATE),
    *cases("noreturn_O0 noreturn_O2", "", from_main("last_call", "leave", "spin")),
    *cases("threads_O0 threads_O2 threads_static", "", LEFT, RIGHT),
    *cases(
        *("frames_O0 frames_O2", ""),
        from_main("hold_70_kib", "hold_nothing", "hold_1_mib", "hold_nothing_more", "spin"),
    ),
    *cases(
        *("realign_O0 realign_O2", ""),
        from_main("align_array", "align_arguments", "align_alloca", "spin"),
    ),
    *cases("split_O2", "", from_main("split", "rare", "after_jump", "spin")),
    *cases("system_O0 system_O2", "read", from_main("read_zeros", "read"), leaves="read"),
]


def user_stacks(captured, program: str) -> list[Stack]:
    """Return the user half of each stack of a program; a split function's parts have one name."""
    frames = captured.profile.frames
    stacks: Counter[tuple[str, ...]] = Counter()
    for one in captured.profile.samples:
        if one.comm == Path(program).name[:15]:
            user = [frames[index] for index in one.stack if frames[index].kind is not FrameKind.KERNEL]
            stacks[tuple(frame.name.removesuffix(".cold") for frame in user)] += one.value
    return [Stack(names, value) for names, value in stacks.items()]


def assert_none_truncated(stacks: list[Stack]) -> None:
    cut = {stack for stack in stacks if any(name.startswith("[truncated") for name in stack.names)}
    assert not cut


def settled(stacks: list[Stack]) -> list[Stack]:
    """Return the stacks without those of the first moments that lie outside their copy, which are few.

    Before its mappings are known a stack is walked from a copy of 64 KiB around rsp; larger frames, and the
    stack that a signal interrupted, are not in it.
    """
    cut = [stack for stack in stacks if stack.names[:1] == (OUTSIDE_COPY,)]
    assert sum(stack.value for stack in cut) <= MAX_CUT_SHARE * sum(stack.value for stack in stacks)
    return [stack for stack in stacks if stack not in cut]


def assert_exact(stacks: list[Stack], leaves: str, truths: tuple[str, ...]) -> None:
    """Every stack with one of the leaves is one of the truths, each of which is seen."""
    in_leaf = [stack for stack in stacks if stack.names and re.fullmatch(leaves, stack.names[-1])]
    seen = {}
    for stack in in_leaf:
        path = ";".join(stack.names)
        seen[path] = next((truth for truth in truths if re.fullmatch(truth, path)), None)
    wrong = [path for path, truth in seen.items() if truth is None]
    assert not wrong, "\n".join(["of no truth:", *wrong, "truths:", *truths])
    assert set(seen.values()) == set(truths)
    share = sum(stack.value for stack in in_leaf) / sum(stack.value for stack in stacks)
    assert share >= LEAF_SHARE, stacks


def share_of(stacks: list[Stack], path: str) -> float:
    """Return the share of the values whose whole stack matches a pattern."""
    matched = sum(value for names, value in stacks if re.fullmatch(path, ";".join(names)))
    return matched / sum(value for _, value in stacks)


def leaf_lists(stacks: list[Stack], leaf: str) -> dict[tuple[str, ...], float]:
    """Return the lists from main to a leaf, with their shares of that leaf."""
    counts: Counter[tuple[str, ...]] = Counter()
    for names, value in stacks:
        if names and names[-1] == leaf:
            counts[names[names.index("main") :] if "main" in names else names] += value
    return {names: value / counts.total() for names, value in counts.items()}


@pytest.fixture
def unwound(capture, sample):
    """Return a function that runs a sample program under pyprof and gives its user stacks."""

    def run(program: str, *arguments: str, unwind: str = "dwarf", **options: object) -> list[Stack]:
        command = ("-F", "997", "--unwind", unwind, "--", sample(program), *arguments)
        return user_stacks(capture(*command, **options), program)

    return run


@pytest.mark.parametrize("case", CASES, ids=str)
def test_stacks_are_exact(case, unwound) -> None:
    stacks = unwound(case.program, *case.kind, SECONDS)
    if case.kind == ("alternate",) or case.program.startswith("frames"):
        stacks = settled(stacks)
    assert_none_truncated(stacks)
    assert_exact(stacks, case.leaves, case.truths)


@pytest.mark.parametrize("program", ["recursion_O0", "recursion_O2", "recursion_static"])
def test_127_frames_from_the_leaf_are_kept(program, unwound) -> None:
    stacks = unwound(program, "200", SECONDS)
    kept = [*recursion(200)[-(DEEPEST - 1) :], "spin"]
    note = re.escape(f"[truncated: deeper than {DEEPEST}]")
    assert_exact(stacks, "spin", (";".join([note, *kept]),))


def test_frame_pointers_agree_where_every_function_keeps_them(unwound) -> None:
    by_walk = {walk: unwound("recursion_fp", "60", SECONDS, unwind=walk) for walk in ("dwarf", "fp")}
    lists = {walk: leaf_lists(stacks, "spin") for walk, stacks in by_walk.items()}
    truth = ("main", *recursion(60), "spin")
    assert lists["dwarf"] == {truth: 1.0}
    # In the first instructions of a function, before it has its frame, frame pointers miss its caller.
    assert lists["fp"][truth] == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("program", ["opened_O0", "opened_O2"])
def test_library_that_is_opened_later_is_walked(program, unwound) -> None:
    """Its table may come some milliseconds after its code."""
    stacks = unwound(program, "1")
    assert share_of(stacks, LIBRARY) >= LEAF_SHARE, stacks


def test_lazy_binding_at_every_call_is_walked(unwound, monkeypatch) -> None:
    """The stub's second half, the first entry of the PLT, and the resolver, which aligns the stack by rbx."""
    monkeypatch.setenv("LD_BIND_NOT", "1")
    stacks = unwound("plt_lazy", SECONDS)
    stub = r"library_tick|library_tick@plt|\[plt_lazy\+0x[0-9a-f]+\]"
    path = f"{OFTEN}(;({stub})|(;{LINKER}|;_dl_[^;]+)+)?"
    assert share_of(stacks, path) >= LEAF_SHARE, stacks


@pytest.mark.parametrize("program", ["system_O0", "system_O2"])
def test_vdso_is_walked(program, unwound) -> None:
    stacks = unwound(program, "clock", SECONDS)
    assert_none_truncated(stacks)
    path = from_main("read_clock(;clock_gettime(@plt)?)?(;[^;]*(vdso|clock)[^;]*){0,2}")
    assert share_of(stacks, path) >= LEAF_SHARE, stacks


def test_program_that_runs_already_is_walked(capture, sample, background) -> None:
    process = background(sample("recursion_O2"), "60", "20")
    captured = capture("-F", "997", "--unwind", "dwarf", "-p", str(process.pid), "0.5")
    stacks = user_stacks(captured, "recursion_O2")
    assert_none_truncated(stacks)
    assert_exact(stacks, "spin", (DEEP,))


def test_programs_that_a_shell_starts_are_walked(capture, sample) -> None:
    script = f"{sample('realign_O2')} 0.5 & {sample('recursion_nopie')} 60 0.5; wait"
    captured = capture("-F", "997", "--unwind", "dwarf", "--", "sh", "-c", script)
    for program in ("realign_O2", "recursion_nopie"):
        (case,) = [case for case in CASES if case.program == program]
        stacks = user_stacks(captured, program)
        assert_none_truncated(stacks)
        assert_exact(stacks, case.leaves, case.truths)


def perf_stacks(command: list[str], data: Path) -> list[Stack]:
    """Return the user stacks that perf finds with libunwind or libdw, root first."""
    record = ("perf", "record", "-q", "-e", "cpu-clock:u", "-F", "199", "--call-graph", "dwarf,16384")
    subprocess.run([*record, "-o", str(data), "--", *command], check=True, capture_output=True)
    script = ("perf", "script", "-i", str(data), "--no-inline", "-F", "ip,sym")
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    parts = [re.findall(r"^\s+[0-9a-f]+ (\S+)", part, re.MULTILINE) for part in text.split("\n\n")]
    return [
        Stack(tuple(name.removesuffix(".cold") for name in reversed(names)), 1) for names in parts if names
    ]


@pytest.mark.parametrize(
    ("program", "kind"), [("recursion_O2", ["60"]), ("realign_O2", []), ("dynamic_O2", [])]
)
def test_lists_agree_with_perf(program, kind, unwound, sample, tmp_path) -> None:
    if not shutil.which("perf"):
        pytest.skip("perf is not installed")
    theirs = perf_stacks([sample(program), *kind, SECONDS], tmp_path / "perf.data")
    ours = unwound(program, *kind, SECONDS)
    assert set(leaf_lists(ours, "spin")) == set(leaf_lists(theirs, "spin"))


@pytest.mark.parametrize("program", ["noreturn_O0", "noreturn_O2"])
def test_next_function_begins_where_the_last_call_returns_to(program, sample) -> None:
    """What samples/stacks/noreturn.c says of its own layout, without which its truth proves little."""
    with open(sample(program), "rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        (last,), (following,) = (table.get_symbol_by_name(name) for name in ("last_call", "next_function"))
        assert last["st_value"] + last["st_size"] == following["st_value"]

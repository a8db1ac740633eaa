"""Captured addresses become frames: root first, inside their calls, and with what is missing marked."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler import capture as captured
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.capture import Capture, Sample
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import ProcessTable, Snapshot
from pyprof.profiler.profile import Loss, Profile, Provenance, Quality
from pyprof.profiler.resolve import Unnamed, offset_name, unnamed_profile
from pyprof.profiler.sideband import ExecEvent, ForkEvent, MapEvent, ProcessEvent
from pyprof.symbolize.frame import NO_MAPPING, FrameKind

Make = Callable[..., FileMapping]
Event = ProcessEvent | Snapshot

SECOND = 1_000_000_000
KERNEL = 0xFFFF_FFFF_8100_0000
STACK = 1 << 63  # the first id of a stack


@pytest.fixture
def binaries() -> Iterator[Binaries]:
    with closing(Binaries(proc="/nonexistent")) as made:
        yield made


def capture(
    events: list[Event],
    *samples: Sample,
    stacks: list[tuple[int, ...]],
    execs_since_ns: int = SECOND + SECOND // 2,
    max_depth: int = 127,
    losses: tuple[Loss, ...] = (),
) -> Capture:
    """Return a capture; the ids of its stacks are STACK, STACK + 1, ..."""
    table = ProcessTable()
    for event in events:
        table.apply(event)
    return Capture(
        samples=samples,
        stacks={STACK + index: addresses for index, addresses in enumerate(stacks)},
        execs_since_ns=execs_since_ns,
        processes=table,
        max_depth=max_depth,
        quality=Quality(losses=losses),
        provenance=Provenance(mode="cpu"),
    )


def sample(user: int = 0, kernel: int = 0, *, pid: int = 7, image_ns: int = 0, **changes: int) -> Sample:
    start_ns = changes.pop("start_ns", SECOND)
    value = changes.pop("value", 1)
    return Sample(pid, changes.pop("tid", 0), start_ns, image_ns, b"prog", user, kernel, value)


def process(*files: FileMapping, pid: int = 7, start_ns: int = SECOND) -> Snapshot:
    return Snapshot(start_ns, pid, start_ns // 10_000_000, files)


def names(profile: Profile) -> list[list[str]]:
    """Return the frame names of each sample, root first."""
    return [[profile.frames[index].name for index in one.stack] for one in profile.samples]


def test_stack_is_turned_root_first(binaries: Binaries, mapped: Make) -> None:
    made = capture([process(mapped())], sample(STACK), stacks=[(0x1010, 0x1021, 0x1031)])
    assert names(unnamed_profile(made, binaries).profile) == [["[a+0x30]", "[a+0x20]", "[a+0x10]"]]


def test_kernel_half_comes_below_the_user_half(binaries: Binaries, mapped: Make) -> None:
    stacks = [(0x1010, 0x1021), (KERNEL, KERNEL + 0x11)]
    made = capture([process(mapped())], sample(STACK, STACK + 1), stacks=stacks)
    profile = unnamed_profile(made, binaries).profile
    frames = [profile.frames[index] for index in profile.samples[0].stack]
    assert [(frame.kind, frame.address) for frame in frames] == [
        (FrameKind.USER, 0x20),
        (FrameKind.USER, 0x10),
        (FrameKind.KERNEL, KERNEL + 0x10),
        (FrameKind.KERNEL, KERNEL),
    ]


def test_return_address_is_moved_into_the_call_and_the_leaf_is_not(binaries: Binaries, mapped: Make) -> None:
    after_call = 0x2000  # the call is the last instruction of the first file
    files = (mapped("/bin/a"), mapped("/bin/b", 0x2000, 0x3000))
    made = capture([process(*files)], sample(STACK), stacks=[(after_call, after_call)])
    assert names(unnamed_profile(made, binaries).profile) == [["[a+0xfff]", "[b+0x0]"]]


def test_address_of_a_frame_is_an_offset_into_its_file(binaries: Binaries, mapped: Make) -> None:
    file = mapped("/bin/a", 0x7000, 0x9000, file_offset=0x3000, build_id="abcd")
    unnamed = unnamed_profile(capture([process(file)], sample(STACK), stacks=[(0x7123,)]), binaries)
    (frame,) = unnamed.profile.frames
    assert (frame.name, frame.module, frame.address, frame.mapping) == ("[a+0x3123]", "/bin/a", 0x3123, 0)
    assert unnamed.profile.mappings == ((0x3000, 0x5000, 0x3000, "/bin/a", "abcd"),)


def test_equal_code_of_two_processes_is_one_frame(binaries: Binaries, mapped: Make) -> None:
    here, there = mapped(start=0x1000, limit=0x2000), mapped(start=0x51000, limit=0x52000)
    made = capture(
        [process(here), process(there, pid=8)],
        sample(STACK),
        sample(STACK + 1, pid=8),
        stacks=[(0x1010, 0x1021), (0x51010, 0x51021)],
    )
    profile = unnamed_profile(made, binaries).profile
    first, second = profile.samples
    assert first.stack == second.stack
    assert len(profile.frames) == 2
    assert len(profile.mappings) == 1


def test_equal_path_of_another_build_is_another_frame(binaries: Binaries, mapped: Make) -> None:
    made = capture(
        [process(mapped(build_id="abcd")), process(mapped(build_id="ef01"), pid=8)],
        sample(STACK),
        sample(STACK, pid=8),
        stacks=[(0x1010,)],
    )
    profile = unnamed_profile(made, binaries).profile
    assert [frame.mapping for frame in profile.frames] == [0, 1]
    assert [mapping.build_id for mapping in profile.mappings] == ["abcd", "ef01"]


def test_stack_belongs_to_the_program_image_of_its_time(binaries: Binaries, mapped: Make) -> None:
    made = capture(
        [
            process(mapped("/bin/sh")),
            ExecEvent(2 * SECOND, 7),
            MapEvent(2 * SECOND + 1, 7, mapped("/bin/ls")),
            ExecEvent(3 * SECOND, 7),
            MapEvent(3 * SECOND + 1, 7, mapped("/bin/cat")),
        ],
        *(sample(STACK, image_ns=image_ns) for image_ns in (0, 2 * SECOND + 5, 3 * SECOND + 5)),
        stacks=[(0x1010,)],
    )
    assert names(unnamed_profile(made, binaries).profile) == [["[sh+0x10]"], ["[ls+0x10]"], ["[cat+0x10]"]]


def test_execve_between_the_first_event_and_the_first_sample_is_the_image_of_unmarked_samples(
    binaries: Binaries, mapped: Make
) -> None:
    events = [
        process(mapped("/bin/sh")),
        ExecEvent(2 * SECOND, 7),
        MapEvent(2 * SECOND + 1, 7, mapped("/bin/ls")),
    ]
    made = capture(events, sample(STACK), stacks=[(0x1010,)], execs_since_ns=2 * SECOND + 2)
    assert names(unnamed_profile(made, binaries).profile) == [["[ls+0x10]"]]


def test_reused_process_id_is_told_by_its_start_time(binaries: Binaries, mapped: Make) -> None:
    made = capture(
        [
            process(mapped("/bin/old")),
            ForkEvent(9 * SECOND, 7, 1),
            MapEvent(9 * SECOND, 7, mapped("/bin/new")),
        ],
        sample(STACK, start_ns=SECOND),
        sample(STACK, start_ns=9 * SECOND - 1000),
        stacks=[(0x1010,)],
    )
    assert names(unnamed_profile(made, binaries).profile) == [["[old+0x10]"], ["[new+0x10]"]]


@pytest.mark.parametrize(
    ("pid", "name"), [(7, "[process ended before it was seen]"), (0, "[process outside this pid namespace]")]
)
def test_unknown_process_says_why_and_keeps_its_depth(pid: int, name: str, binaries: Binaries) -> None:
    made = capture([], sample(STACK, pid=pid), stacks=[(0x1010, 0x1021)])
    assert names(unnamed_profile(made, binaries).profile) == [[name, name]]


def test_leaf_outside_all_mappings_says_so_and_keeps_its_callers(binaries: Binaries, mapped: Make) -> None:
    made = capture([process(mapped())], sample(STACK), stacks=[(0x9000, 0x1021)])
    assert names(unnamed_profile(made, binaries).profile) == [["[a+0x20]", "[address in no mapping]"]]


@pytest.mark.parametrize("beyond", [(0x5,), (0x5, 0x1031), (0,), (0xFFFF_FFFF_FFFF_FFFF,)])
def test_chain_that_leaves_the_code_is_cut_and_marked(
    beyond: tuple[int, ...], binaries: Binaries, mapped: Make
) -> None:
    made = capture([process(mapped())], sample(STACK), stacks=[(0x1010, 0x1021, *beyond)])
    assert names(unnamed_profile(made, binaries).profile) == [
        ["[truncated: no frame pointers]", "[a+0x20]", "[a+0x10]"]
    ]


@pytest.mark.parametrize(("depth", "marked"), [(3, True), (2, False)])
@pytest.mark.parametrize("half", ["user", "kernel"])
def test_stack_as_deep_as_the_limit_is_marked_as_cut(
    depth: int, marked: bool, half: str, binaries: Binaries, mapped: Make
) -> None:
    addresses = tuple((0x1010 if half == "user" else KERNEL) + 1 for _ in range(depth))
    one = sample(**{half: STACK})
    made = capture([process(mapped())], one, stacks=[addresses], max_depth=3)
    (found,) = names(unnamed_profile(made, binaries).profile)
    assert len(found) == depth + marked
    assert (found[0] == "[truncated: deeper than 3]") == marked


def test_chain_that_is_cut_and_broken_is_marked_once(binaries: Binaries, mapped: Make) -> None:
    made = capture([process(mapped())], sample(STACK), stacks=[(0x1010, 0x5, 0x6)], max_depth=3)
    assert names(unnamed_profile(made, binaries).profile) == [["[truncated: no frame pointers]", "[a+0x10]"]]


@pytest.mark.parametrize(
    ("stack_id", "note"),
    [
        (captured.STACK_MAP_FULL, "[lost: stack map full]"),
        (captured.STACK_UNREADABLE, "[user stack could not be read]"),
        (captured.STACK_COLLISION, "[lost: stack hash collision]"),
        (STACK + 1, "[lost: stack map full]"),  # its entry was lost between two CPUs
    ],
)
def test_lost_stack_keeps_its_value_under_a_note(stack_id: int, note: str, binaries: Binaries) -> None:
    made = capture([], sample(stack_id, STACK, value=5), stacks=[(KERNEL,)])
    profile = unnamed_profile(made, binaries).profile
    assert names(profile) == [[note, "[kernel]"]]
    assert [profile.frames[index].kind for index in profile.samples[0].stack] == [
        FrameKind.NOTE,
        FrameKind.KERNEL,
    ]
    assert profile.total == 5


def test_sample_without_any_stack_is_counted(binaries: Binaries) -> None:
    profile = unnamed_profile(capture([], sample(value=5), stacks=[]), binaries).profile
    assert names(profile) == [[]]
    assert profile.total == 5


def test_counts_that_had_no_room_are_under_a_note(binaries: Binaries) -> None:
    losses = (Loss("count map full", 3, kept=True), Loss("stack map full", 9, kept=True))
    made = capture([], sample(value=5), stacks=[], losses=losses)
    profile = unnamed_profile(made, binaries).profile
    assert names(profile) == [[], ["[lost: count map full]"]]
    assert (profile.total, profile.samples[1].comm) == (8, "")


@pytest.mark.parametrize("path", ["//anon", "[heap]", "[stack]", "//memory", "anon_inode:[perf]"])
def test_code_without_a_file_is_told_by_its_place(path: str, binaries: Binaries, mapped: Make) -> None:
    made = capture([process(mapped(path))], sample(STACK), stacks=[(0x1010,)])
    (frame,) = unnamed_profile(made, binaries).profile.frames
    assert (frame.kind, frame.address, frame.mapping) == (FrameKind.JIT, 0x1010, NO_MAPPING)
    assert frame.name.endswith("+0x10]")


def test_vdso_is_a_file_without_a_descriptor(binaries: Binaries, mapped: Make) -> None:
    made = capture([process(mapped("[vdso]"))], sample(STACK), stacks=[(0x1010,)])
    unnamed = unnamed_profile(made, binaries)
    assert unnamed.profile.frames[0].name == "[vdso+0x10]"
    assert [mapping.path for mapping in unnamed.profile.mappings] == ["[vdso]"]
    assert unnamed.descriptors == (-1,)


def test_each_mapping_has_the_descriptor_of_its_file(
    tmp_path: Path, binaries: Binaries, mapped: Make
) -> None:
    (tmp_path / "a").touch()
    there, gone = mapped(str(tmp_path / "a")), mapped("/nonexistent", 0x2000, 0x3000)
    for file in (there, gone):
        binaries.hold(7, file)
    made = capture([process(there, gone)], sample(STACK), stacks=[(0x1010, 0x2011)])
    unnamed = unnamed_profile(made, binaries)
    assert [mapping.path for mapping in unnamed.profile.mappings] == [str(tmp_path / "a"), "/nonexistent"]
    assert unnamed.descriptors == (binaries.descriptor(there), -1)


def test_hostile_thread_name_and_path_become_printable(binaries: Binaries, mapped: Make) -> None:
    hostile = sample(STACK)._replace(comm=b"a;b 9\nevil\x1b[2J\xff")
    made = capture([process(mapped("/bin/\x1b[2J\udcff"))], hostile, stacks=[(0x1010,)])
    profile = unnamed_profile(made, binaries).profile
    assert profile.samples[0].comm == r"a;b 9\x0aevil\x1b[2J\xff"
    assert profile.frames[0].name == r"[\x1b[2J\xff+0x10]"


def test_same_capture_gives_the_same_profile_in_whatever_order_it_was_read(
    binaries: Binaries, mapped: Make
) -> None:
    samples = [sample(STACK, tid=tid, value=tid) for tid in (3, 1, 2)]
    profiles: list[Unnamed] = []
    for order in (samples, samples[::-1]):
        made = capture([process(mapped())], *order, stacks=[(0x1010,)])
        profiles.append(unnamed_profile(made, binaries))
    assert profiles[0] == profiles[1]
    assert [one.tid for one in profiles[0].profile.samples] == [1, 2, 3]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/lib/libc.so.6", "[libc.so.6+0x1]"),
        ("[vdso]", "[vdso+0x1]"),
        ("//anon", "[anon+0x1]"),
        ("/", "[/+0x1]"),
        ("/bin/a\nb", r"[a\x0ab+0x1]"),
    ],
)
def test_frame_without_a_name_is_told_by_module_and_offset(path: str, name: str) -> None:
    assert offset_name(path, 1) == name

"""Stacks that were walked along unwind tables become frames, and how they ended stands at their roots."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyprof.profiler import capture as captured
from pyprof.profiler.binaries import Binaries
from pyprof.profiler.capture import (
    END_32_BIT,
    END_BY_KERNEL,
    END_COMPLETE,
    END_COPY_CUT,
    END_GUESSED,
    END_NO_MAPPING,
    END_NO_PROGRESS,
    END_NO_ROW,
    END_NOT_READY,
    END_NOT_RESIDENT,
    END_TOO_DEEP,
    END_UNSUPPORTED,
    Capture,
    Sample,
)
from pyprof.profiler.executables import Executables
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import ProcessTable, Snapshot
from pyprof.profiler.profile import Profile, Provenance, Quality, Truncation
from pyprof.profiler.resolve import Unnamed, unnamed_profile
from pyprof.profiler.unwind_maps import FrameWord, word_of
from pyprof.symbolize.frame import NO_MAPPING, FrameKind

Make = Callable[..., FileMapping]

SECOND = 1_000_000_000
KERNEL = 0xFFFF_FFFF_8100_0000
STACK = 1 << 63  # the first id of a stack
REASONS = {
    END_NO_ROW: "no unwind row",
    END_NOT_RESIDENT: "page not resident",
    END_TOO_DEEP: "deeper than 127",
    END_UNSUPPORTED: "unwind rule not supported",
    END_NO_PROGRESS: "stack pointer does not rise",
    END_NO_MAPPING: "address in no mapping",
    END_NOT_READY: "unwind tables not ready",
    END_COPY_CUT: "stack larger than its copy",
}


UNREADABLE = "user stack could not be read"


class Scene:
    """A process of which the executables are numbered as its mappings are ordered."""

    def __init__(self, binaries: Binaries) -> None:
        self.binaries = binaries
        self.executables = Executables(binaries)
        self.processes = ProcessTable()

    def map(self, *files: FileMapping, pid: int = 7) -> None:
        for file in files:
            self.executables.number(file)
        self.processes.apply(Snapshot(SECOND, pid, 100, files))

    def unnamed(self, *samples: Sample, stacks: tuple[tuple[int, ...], ...]) -> Unnamed:
        """Return the profile; the ids of the stacks are STACK, STACK + 1, ..."""
        made = Capture(
            samples=samples,
            stacks={STACK + index: words for index, words in enumerate(stacks)},
            execs_since_ns=SECOND,
            processes=self.processes,
            max_depth=127,
            quality=Quality(taken=5),
            provenance=Provenance(mode="cpu"),
            executables=self.executables,
        )
        return unnamed_profile(made, self.binaries)

    def profile(self, *samples: Sample, stacks: tuple[tuple[int, ...], ...]) -> Profile:
        return self.unnamed(*samples, stacks=stacks).profile


@pytest.fixture
def scene() -> Iterator[Scene]:
    with closing(Binaries(proc="/nonexistent")) as binaries:
        yield Scene(binaries)


def sample(
    user: int = STACK, kernel: int = 0, *, end: int = END_COMPLETE, pid: int = 7, value: int = 1
) -> Sample:
    return Sample(pid, 0, SECOND, 0, b"prog", user, kernel, value, end)


def word(exe: int, address: int) -> int:
    return word_of(FrameWord(exe, address))


def names(profile: Profile) -> list[list[str]]:
    """Return the frame names of each sample, root first."""
    return [[profile.frames[index].name for index in one.stack] for one in profile.samples]


def test_every_end_has_its_reason() -> None:
    ends = {getattr(captured, name) for name in vars(captured) if name.startswith("END_")}
    assert ends == {END_BY_KERNEL, END_32_BIT, END_COMPLETE, END_GUESSED, *REASONS}


def test_words_are_offsets_in_files_root_first_and_unchanged(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"), mapped("/lib/b", 0x5000, 0x7000, file_offset=0x3000))
    profile = scene.profile(sample(), stacks=((word(1, 0x3010), word(0, 0x20), word(0, 0x30)),))
    assert names(profile) == [["[a+0x30]", "[a+0x20]", "[b+0x3010]"]]
    found = [(frame.kind, frame.module, frame.address) for frame in profile.frames]
    assert (FrameKind.USER, "/lib/b", 0x3010) in found
    assert {mapping.path for mapping in profile.mappings} == {"/bin/a", "/lib/b"}
    assert ((0x3000, 0x5000, 0x3000, "/lib/b", "")) in profile.mappings


def test_kernel_half_comes_below_a_walked_stack(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"))
    stacks = ((word(0, 0x10),), (KERNEL, KERNEL + 0x11))
    profile = scene.profile(sample(STACK, STACK + 1), stacks=stacks)
    assert names(profile) == [["[a+0x10]", "[kernel]", "[kernel]"]]
    kernel = [frame.address for frame in profile.frames if frame.kind is FrameKind.KERNEL]
    assert sorted(kernel) == [KERNEL, KERNEL + 0x10]  # these are return addresses


def test_frame_has_the_piece_of_its_file_that_held_it(scene: Scene, mapped: Make) -> None:
    scene.map(
        mapped("/bin/a", 0x10000, 0x12000, file_offset=0x1000),
        mapped("/bin/a", 0x15000, 0x16000, file_offset=0x8000),
    )
    profile = scene.profile(sample(), stacks=((word(0, 0x8010), word(0, 0x1010)),))
    found = {frame.address: profile.mappings[frame.mapping].start for frame in profile.frames}
    assert found == {0x8010: 0x8000, 0x1010: 0x1000}


def test_mapping_has_the_descriptor_of_its_executable(tmp_path: Path, scene: Scene, mapped: Make) -> None:
    (tmp_path / "a").touch()
    file = mapped(str(tmp_path / "a"))
    scene.binaries.hold(7, file)
    scene.map(file, mapped("/gone", 0x5000, 0x6000))
    unnamed = scene.unnamed(sample(), stacks=((word(0, 0x10), word(1, 0x10)),))
    paths = [mapping.path for mapping in unnamed.profile.mappings]
    descriptors = dict(zip(paths, unnamed.descriptors, strict=True))
    assert descriptors == {str(tmp_path / "a"): scene.binaries.descriptor(file), "/gone": -1}


def test_both_ways_to_walk_give_the_same_frames(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a", file_offset=0x3000))
    absolute, words = (0x1010, 0x1021), (word(0, 0x3010), word(0, 0x3020))
    profile = scene.profile(sample(STACK, end=END_BY_KERNEL), sample(STACK + 1), stacks=(absolute, words))
    first, second = profile.samples
    assert first.stack == second.stack
    assert len(profile.mappings) == 1


def test_code_without_a_file_is_at_the_address_that_the_walk_gave(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"), mapped("//anon", 0x5000, 0x6000))
    profile = scene.profile(sample(), stacks=((0x5000, 0x5020, word(0, 0x10)),))
    assert names(profile) == [["[a+0x10]", "[anon+0x20]", "[anon+0x0]"]]
    jit = [frame for frame in profile.frames if frame.kind is FrameKind.JIT]
    assert sorted((frame.address, frame.mapping) for frame in jit) == [
        (0x5000, NO_MAPPING),
        (0x5020, NO_MAPPING),
    ]


def test_words_mean_the_same_in_each_process_and_addresses_do_not(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"), mapped("//anon", 0x5000, 0x6000), pid=7)
    scene.map(mapped("[heap]", 0x4000, 0x6000), pid=8)
    stack = (0x5010, word(0, 0x10))
    profile = scene.profile(sample(), sample(pid=8), stacks=(stack,))
    assert names(profile) == [["[a+0x10]", "[anon+0x10]"], ["[a+0x10]", "[heap+0x1010]"]]


def test_address_of_an_unknown_process_says_why_it_is_unknown(scene: Scene) -> None:
    profile = scene.profile(sample(pid=0), sample(pid=7), stacks=((0x5010,),))
    assert names(profile) == [
        ["[process outside this pid namespace]"],
        ["[process ended before it was seen]"],
    ]


def test_frame_in_a_file_needs_no_process(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"), pid=7)
    assert names(scene.profile(sample(pid=9), stacks=((word(0, 0x10),),))) == [["[a+0x10]"]]


@pytest.mark.parametrize(("end", "reason"), REASONS.items())
def test_walk_that_ended_early_says_why_at_its_root(
    end: int, reason: str, scene: Scene, mapped: Make
) -> None:
    scene.map(mapped("/bin/a"))
    profile = scene.profile(sample(end=end, value=3), stacks=((word(0, 0x10),),))
    assert names(profile) == [[f"[truncated: {reason}]", "[a+0x10]"]]
    assert profile.frames[profile.samples[0].stack[0]].kind is FrameKind.NOTE
    assert profile.quality == Quality(taken=5, user_stacks=3, truncated=(Truncation(reason, 3),))


@pytest.mark.parametrize(
    ("stack_id", "reason"),
    [
        (captured.STACK_MAP_FULL, "lost: stack map full"),
        (captured.STACK_COLLISION, "lost: stack hash collision"),
        (STACK + 9, "lost: stack map full"),  # its entry was lost between two CPUs
    ],
)
@pytest.mark.parametrize("end", [END_COMPLETE, END_GUESSED, END_NO_ROW, END_BY_KERNEL, END_32_BIT])
def test_stack_that_was_lost_says_so_however_its_walk_ended(
    stack_id: int, reason: str, end: int, scene: Scene
) -> None:
    profile = scene.profile(sample(stack_id, end=end, value=3), stacks=())
    assert names(profile) == [[f"[{reason}]"]]
    assert profile.quality == Quality(taken=5, user_stacks=3, truncated=(Truncation(reason, 3),))


@pytest.mark.parametrize(
    ("end", "note"),
    [
        (END_BY_KERNEL, UNREADABLE),
        (END_32_BIT, UNREADABLE),
        (END_COMPLETE, UNREADABLE),
        (END_GUESSED, UNREADABLE),
        (END_TOO_DEEP, UNREADABLE),
        *((end, f"truncated: {why}") for end, why in REASONS.items() if end != END_TOO_DEEP),
    ],
)
def test_walk_without_a_frame_says_why_it_ended_where_that_is_known(
    end: int, note: str, scene: Scene
) -> None:
    profile = scene.profile(sample(captured.STACK_UNREADABLE, end=end, value=3), stacks=())
    assert names(profile) == [[f"[{note}]"]]
    reason = note.removeprefix("truncated: ")
    assert profile.quality == Quality(taken=5, user_stacks=3, truncated=(Truncation(reason, 3),))


def test_walk_that_may_have_skipped_a_caller_says_so_at_its_root(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"))
    profile = scene.profile(sample(end=END_GUESSED, value=3), stacks=((word(0, 0x10), word(0, 0x20)),))
    assert names(profile) == [["[callers may be missing: no unwind row]", "[a+0x20]", "[a+0x10]"]]
    assert profile.frames[profile.samples[0].stack[0]].kind is FrameKind.NOTE
    told = Truncation("callers may be missing: no unwind row", 3)
    assert profile.quality == Quality(taken=5, user_stacks=3, truncated=(told,))
    assert profile.quality.complete == 0


def test_32_bit_code_is_walked_along_frame_pointers_and_says_so_at_its_root(
    scene: Scene, mapped: Make
) -> None:
    scene.map(mapped("/bin/a", file_offset=0x3000))
    profile = scene.profile(sample(STACK, STACK + 1, end=END_32_BIT), stacks=((0x1010, 0x1021), (KERNEL,)))
    note = "[callers may be missing: 32-bit code]"
    assert names(profile) == [[note, "[a+0x3020]", "[a+0x3010]", "[kernel]"]]
    told = Truncation("callers may be missing: 32-bit code", 1)
    assert profile.quality == Quality(taken=5, user_stacks=1, truncated=(told,))


def test_32_bit_stack_that_was_cut_says_only_that(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"))
    profile = scene.profile(sample(end=END_32_BIT), stacks=((0x1010, 0x5),))
    assert names(profile) == [["[truncated: no frame pointers]", "[a+0x10]"]]
    assert profile.quality.truncated == (Truncation("no frame pointers", 1),)


def test_truncations_add_up_by_reason(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"))
    ends = (END_COMPLETE, END_NOT_RESIDENT, END_NO_ROW, END_NO_ROW)
    samples = [sample(STACK + index, end=end, value=10**index) for index, end in enumerate(ends)]
    quality = scene.profile(*samples, stacks=tuple((word(0, n),) for n in range(4))).quality
    assert quality.user_stacks == 1111
    assert quality.truncated == (Truncation("no unwind row", 1100), Truncation("page not resident", 10))
    assert quality.complete == 1


def test_frame_pointer_stacks_are_cut_where_that_can_be_seen(scene: Scene, mapped: Make) -> None:
    scene.map(mapped("/bin/a"))
    stacks = ((0x1010, 0x1021), (0x1010, 0x5), (0x1011,) * 127)
    samples = [sample(STACK + index, end=END_BY_KERNEL, value=10**index) for index in range(len(stacks))]
    quality = scene.profile(*samples, stacks=stacks).quality
    assert quality.user_stacks == 111
    assert quality.truncated == (Truncation("deeper than 127", 100), Truncation("no frame pointers", 10))


def test_sample_without_a_user_stack_is_in_no_sum(scene: Scene) -> None:
    nothing = sample(0, end=END_BY_KERNEL, value=3)
    kernel = sample(0, STACK, end=END_BY_KERNEL, value=4)
    assert scene.profile(nothing, kernel, stacks=((KERNEL,),)).quality == Quality(taken=5)

"""A Profile survives pprof; what exactly is normalised stands in render/pprof.py."""

import gzip
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyprof.profiler.profile import Loss, Mapping, Profile, ProfileSample, Provenance, Quality
from pyprof.render import profile_pb2
from pyprof.render.errors import RenderError
from pyprof.render.pprof import encode_pprof
from pyprof.render.pprof_reader import decode_pprof
from pyprof.symbolize.frame import NO_MAPPING, Frame, FrameKind

APP = Mapping(0x1000, 0x9000, 0x1000, "/usr/bin/app", "abcdef0123")
LIBC = Mapping(0x26000, 0x17B000, 0x26000, "/usr/lib/libc.so.6", "00ff")
MAIN = Frame("main", FrameKind.USER, APP.path, 0x1234, 0, 12, "main.c")


def profile_of(*stacks: tuple[Frame, ...], mappings: tuple[Mapping, ...] = (APP, LIBC)) -> Profile:
    """Return a profile in which each stack, root first, has the value 1."""
    frames = tuple(dict.fromkeys(frame for stack in stacks for frame in stack))
    samples = tuple(ProfileSample(tuple(map(frames.index, stack)), 1, "app", 7, 8) for stack in stacks)
    return Profile(unit="samples", samples=samples, frames=frames, mappings=mappings)


def message_of(profile: Profile) -> profile_pb2.Profile:
    """Return the message in the file of a profile."""
    return profile_pb2.Profile.FromString(gzip.decompress(encode_pprof(profile)))


def texts(message: profile_pb2.Profile, *indices: int) -> list[str]:
    """Return entries of the string table."""
    return [message.string_table[index].decode() for index in indices]


KINDS = {
    "user": MAIN,
    "user without a file": Frame("parse", FrameKind.USER),
    "user without a mapping": Frame("parse", FrameKind.USER, "/opt/x.so", 0x99),
    "unknown": Frame("[libc.so.6+0x27000]", FrameKind.USER, LIBC.path, 0x27000, 1),
    "unknown with a source": Frame("[libc.so.6+0x27000]", FrameKind.USER, LIBC.path, 0x27000, 1, 3, "x.c"),
    "kernel": Frame("schedule", FrameKind.KERNEL, "", 0xFFFFFFFF81000010),
    "kernel module": Frame("nf_hook", FrameKind.KERNEL, "nf_conntrack", 0xFFFFFFFFC0000010),
    "kernel image": Frame("schedule", FrameKind.KERNEL, "vmlinux", 0xFFFFFFFF81000010),
    "module with a misleading name": Frame("f", FrameKind.KERNEL, "kernel.kallsyms", 0xFFFFFFFF81000010),
    "jit": Frame("Interpreter;x", FrameKind.JIT, "", 0x7F0000001000),
    "jit of a perf map": Frame("LazyCompile:~f", FrameKind.JIT, "/tmp/perf-7.map", 0x7F0000001000),
    "jit in a file": Frame("stub", FrameKind.JIT, APP.path, 0x1234, 0),
    "note": Frame("[lost: stack map full]", FrameKind.NOTE),
    "note in plain words": Frame("no stack", FrameKind.NOTE),
    "process": Frame("app", FrameKind.PROCESS),
    "inlined alone": Frame("inline_me", FrameKind.INLINED, APP.path, 0x1234, 0, 4, "a.h"),
    "named like the mark of an origin": Frame("pyprof:jit:x", FrameKind.USER, APP.path, 0x1234, 0),
    "template": Frame("f<int; &>", FrameKind.USER, APP.path, (1 << 40) + 1, 0),
}


@pytest.mark.parametrize("frame", KINDS.values(), ids=KINDS.keys())
def test_frame_of_each_kind_survives(frame: Frame) -> None:
    profile = profile_of((MAIN, frame), (frame,))
    assert decode_pprof(encode_pprof(profile)) == profile


def test_whole_profile_survives() -> None:
    profile = Profile(
        unit="samples",
        samples=(
            ProfileSample((0, 1), 90, "app", 7, 8),
            ProfileSample((1,), 3, ""),
            ProfileSample((), 2, "x"),
        ),
        frames=(MAIN, KINDS["kernel"]),
        mappings=(APP, LIBC, APP),
        provenance=Provenance(
            mode="cpu",
            event="cpu-clock",
            period=10_101_010,
            frequency_hz=99,
            started_unix_ns=1_700_000_000_000_000_001,
            duration_ns=30_000_000_000,
            host="web-3",
            kernel="6.1.0-18-amd64",
            cpus=4,
            engine="libbpf 1.1",
            targets="all processes",
            version="0.1.0",
            notes=("The command exited with status 1.", "a=b: c"),
        ),
        quality=Quality(
            expected=120,
            taken=118,
            counted=95,
            idle=20,
            excluded=1,
            losses=(Loss("ring buffer full", 2, False), Loss("stack map full", 5, True)),
        ),
    )
    assert decode_pprof(encode_pprof(profile)) == profile


def test_inlined_frames_are_lines_of_one_location_innermost_first() -> None:
    outer, inner = (
        Frame(name, FrameKind.INLINED, APP.path, 0x1234, 0, 4, "a.h") for name in ("outer", "inner")
    )
    profile = profile_of((MAIN, MAIN, outer, inner))
    message = message_of(profile)
    assert [len(location.line) for location in message.location] == [1, 3]
    assert list(message.sample[0].location_id) == [2, 1]
    functions = [message.function[line.function_id - 1] for line in message.location[1].line]
    assert texts(message, *(function.name for function in functions)) == ["inner", "outer", "main"]
    assert [line.line for line in message.location[1].line] == [4, 4, 12]
    assert decode_pprof(encode_pprof(profile)) == profile


def test_inlined_frame_at_another_address_begins_a_location() -> None:
    inlined = Frame("inner", FrameKind.INLINED, APP.path, 0x1238, 0)
    profile = profile_of((MAIN, inlined))
    assert len(message_of(profile).location) == 2
    assert decode_pprof(encode_pprof(profile)) == profile


def test_unknown_frame_has_no_function_so_that_viewers_may_name_it() -> None:
    message = message_of(profile_of((MAIN, KINDS["unknown"])))
    assert [len(location.line) for location in message.location] == [1, 0]
    assert [mapping.has_functions for mapping in message.mapping] == [True, False]


def test_kernel_frames_go_to_the_kernel_mapping_of_the_profile() -> None:
    kernel = Mapping(0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0, "[kernel.kallsyms]", "cafe")
    profile = decode_pprof(encode_pprof(profile_of((KINDS["kernel"],), mappings=(APP, kernel))))
    assert profile.mappings == (APP, kernel)
    assert profile.frames == (KINDS["kernel"]._replace(mapping=1),)


def test_made_mappings_are_in_the_file_but_not_in_the_profile() -> None:
    profile = profile_of((KINDS["kernel"], KINDS["kernel module"], KINDS["jit"]), mappings=())
    message = message_of(profile)
    names = texts(message, *(mapping.filename for mapping in message.mapping))
    assert names == ["[kernel.kallsyms]", "[nf_conntrack]", "//anon"]
    assert decode_pprof(encode_pprof(profile)).mappings == ()


def test_cpu_clock_has_time_as_the_second_and_default_value() -> None:
    message = message_of(
        Profile(
            unit="samples",
            samples=(ProfileSample((0,), 3, "app", 7, 8),),
            frames=(MAIN,),
            mappings=(APP,),
            provenance=Provenance(event="cpu-clock", period=10_000_000),
        )
    )
    kinds = [texts(message, kind.type, kind.unit) for kind in (*message.sample_type, message.period_type)]
    assert kinds == [["samples", "count"], ["cpu", "nanoseconds"], ["cpu", "nanoseconds"]]
    assert texts(message, message.default_sample_type) == ["cpu"]
    assert list(message.sample[0].value) == [3, 30_000_000]
    labels = {texts(message, label.key)[0]: label for label in message.sample[0].label}
    assert (labels["pid"].num, labels["tid"].num, texts(message, labels["comm"].str)) == (7, 8, ["app"])


@pytest.mark.parametrize(
    ("unit", "event", "expected"),
    [
        ("samples", "cycles", [["samples", "count"], ["cycles", "count"]]),
        ("microseconds", "sched_switch", [["offcpu", "microseconds"], ["sched_switch", "count"]]),
        ("cycles", "", [["cycles", "count"], ["", ""]]),
    ],
)
def test_other_events_have_one_value(unit: str, event: str, expected: list[list[str]]) -> None:
    provenance = Provenance(mode="offcpu", event=event, period=1000)
    profile = Profile(unit=unit, samples=(), frames=(), provenance=provenance)
    message = message_of(profile)
    kinds = [texts(message, kind.type, kind.unit) for kind in (*message.sample_type, message.period_type)]
    assert kinds == expected
    assert decode_pprof(encode_pprof(profile)) == profile


def test_time_that_does_not_fit_is_left_out() -> None:
    provenance = Provenance(event="cpu-clock", period=10_000_000)
    samples = (ProfileSample((), 1 << 60, ""),)
    profile = Profile(unit="samples", samples=samples, frames=(), provenance=provenance)
    assert len(message_of(profile).sample_type) == 1
    assert decode_pprof(encode_pprof(profile)) == profile


def test_equal_stacks_and_frames_become_one() -> None:
    samples = (ProfileSample((0, 1), 1, "app"), ProfileSample((1, 0), 2, "app"))
    profile = decode_pprof(
        encode_pprof(Profile(unit="samples", samples=samples, frames=(MAIN, MAIN), mappings=(APP,)))
    )
    assert profile.samples == (ProfileSample((0, 0), 3, "app"),)
    assert profile.frames == (MAIN,)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (Profile(unit="samples", samples=(ProfileSample((0,), 1, ""),), frames=()), "frame 0 of 0"),
        (
            Profile(unit="samples", samples=(ProfileSample((-1,), 1, ""),), frames=(MAIN,), mappings=(APP,)),
            "frame -1 of 1",
        ),
        (Profile(unit="samples", samples=(), frames=(MAIN,)), "mapping 0 of 0"),
        (Profile(unit="samples", samples=(ProfileSample((), -4, ""),), frames=()), "value -4"),
        (Profile(unit="samples", samples=(ProfileSample((), 1 << 63, ""),), frames=()), "cannot write pprof"),
        (
            Profile(unit="samples", samples=(), frames=(), mappings=(Mapping(0, 1 << 64, 0, "x"),)),
            "cannot write",
        ),
    ],
)
def test_impossible_profile_is_refused_in_one_line(profile: Profile, message: str) -> None:
    with pytest.raises(RenderError, match=message) as caught:
        encode_pprof(profile)
    assert "\n" not in str(caught.value)


TEXT = st.text(st.characters(), max_size=6) | st.sampled_from(
    [
        "",
        "f",
        "[x]",
        "pyprof:jit:a",
        "[kernel.kallsyms]",
        "//anon",
        "a\ud800\n",
        "b\x1b",
        "[app+0x1]",
        "[0x1]",
    ]
)
COUNT = st.integers(0, 1 << 40)
ADDRESS = st.sampled_from([0, 1, 0x1234, 1 << 63, (1 << 64) - 1])
PATH = TEXT | st.sampled_from(["/usr/bin/app", "[nf_tables]", "[vsyscall]", "/lib/x.ko.xz", "[anon:heap]"])
MAPPINGS = st.lists(
    st.builds(Mapping, ADDRESS, ADDRESS, st.sampled_from([0, 0x1000]), PATH, st.sampled_from(["", "ab12"])),
    max_size=3,
)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any Profile whose indices and numbers are in range, however odd the rest."""
    mappings = draw(MAPPINGS)
    index = st.integers(NO_MAPPING, len(mappings) - 1)
    frame = st.builds(Frame, TEXT, st.sampled_from(FrameKind), PATH, ADDRESS, index, st.integers(0, 2), TEXT)
    frames = draw(st.lists(frame, min_size=1, max_size=6))
    stack = st.lists(st.integers(0, len(frames) - 1), max_size=8).map(tuple)
    number = st.integers(0, 2)
    sample = st.builds(ProfileSample, stack, COUNT, TEXT, number, number)
    loss = st.builds(Loss, TEXT, COUNT, st.booleans())
    return Profile(
        unit=draw(st.sampled_from(["samples", "microseconds", "nanoseconds", "cycles", "bytes"]) | TEXT),
        samples=tuple(draw(st.lists(sample, max_size=5))),
        frames=tuple(frames),
        mappings=tuple(mappings),
        provenance=draw(
            st.builds(
                Provenance,
                mode=TEXT,
                event=TEXT | st.just("cpu-clock"),
                period=COUNT,
                frequency_hz=COUNT,
                started_unix_ns=COUNT,
                duration_ns=COUNT,
                host=TEXT,
                notes=st.lists(TEXT, max_size=2).map(tuple),
            )
        ),
        quality=draw(st.builds(Quality, taken=COUNT, losses=st.lists(loss, max_size=2).map(tuple))),
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(profiles())
def test_any_profile_is_stable_after_one_round_trip(profile: Profile) -> None:
    data = encode_pprof(profile)
    again = decode_pprof(data)
    assert again.total == profile.total
    assert encode_pprof(again) == data
    assert decode_pprof(encode_pprof(again)) == again


def drawn(profile: Profile) -> Counter[tuple[object, ...]]:
    """Return the values by all that a reader of the graph may see: no indices, no order."""

    def shown(frame: Frame) -> tuple[object, ...]:
        mapping = profile.mappings[frame.mapping] if frame.mapping != NO_MAPPING else None
        return (*frame._replace(mapping=0), mapping)

    values: Counter[tuple[object, ...]] = Counter()
    for sample in profile.samples:
        stack = tuple(shown(profile.frames[index]) for index in sample.stack)
        values[stack, sample.comm, sample.pid, sample.tid] += sample.value
    return values


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.sampled_from(sorted(KINDS.values(), key=str)), max_size=12), max_size=6))
def test_every_mixture_of_kinds_is_drawn_as_before(stacks: list[list[Frame]]) -> None:
    profile = profile_of(*map(tuple, stacks))
    assert drawn(decode_pprof(encode_pprof(profile))) == drawn(profile)


def test_same_profile_gives_the_same_bytes_without_a_time() -> None:
    files = [encode_pprof(profile_of((MAIN,), (MAIN, KINDS["jit"]))) for _ in range(3)]
    assert all(one == other for one, other in pairwise(files))
    assert files[0][4:8] == bytes(4)  # MTIME in RFC 1952

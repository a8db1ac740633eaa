"""Folded text, written and read."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.render.errors import RenderError
from pyprof.render.escape import printable
from pyprof.render.folded import folded, folded_lines, read_folded
from pyprof.render.stack import StackStyle
from pyprof.symbolize.frame import Frame, FrameKind

Build = Callable[..., Profile]

ANNOTATED = StackStyle(annotated=True)
_TRICKY = st.sampled_from(["\\x3b", "\\", ";", "#", "_[k]", "_[j]", "x5c", " ", "\x1b", "\n", "a", "\udc80"])
_NAME = st.one_of(st.text(st.characters(exclude_categories=())), st.lists(_TRICKY).map("".join))
_KINDS = st.sampled_from([FrameKind.USER, FrameKind.KERNEL, FrameKind.INLINED, FrameKind.JIT])
_FRAMES = st.lists(st.tuples(_NAME.filter(lambda name: name not in {"-", "--"}), _KINDS), max_size=6)
_STACKS = st.lists(st.tuples(_NAME.filter(bool), _FRAMES, st.integers(1, 10**9)), max_size=6)


def _profile(stacks: list[tuple[str, list[tuple[str, FrameKind]], int]]) -> Profile:
    frames = [Frame(printable(name), kind) for _, stack, _ in stacks for name, kind in stack]
    samples, first = [], 0
    for comm, stack, value in stacks:
        samples.append(ProfileSample(tuple(range(first, first + len(stack))), value, printable(comm)))
        first += len(stack)
    return Profile(unit="samples", samples=tuple(samples), frames=tuple(frames))


def _content(profile: Profile) -> dict[tuple[str, tuple[Frame, ...]], int]:
    values: dict[tuple[str, tuple[Frame, ...]], int] = {}
    for sample in profile.samples:
        key = sample.comm, tuple(profile.frames[index] for index in sample.stack)
        values[key] = values.get(key, 0) + sample.value
    return values


@given(_STACKS)
def test_annotated_text_read_back_gives_the_same_stacks(
    stacks: list[tuple[str, list[tuple[str, FrameKind]], int]],
) -> None:
    profile = _profile(stacks)
    assert _content(read_folded(folded(profile, ANNOTATED))) == _content(profile)


@given(_STACKS)
def test_writing_what_was_read_gives_the_same_text(
    stacks: list[tuple[str, list[tuple[str, FrameKind]], int]],
) -> None:
    text = folded(_profile(stacks))
    assert folded(read_folded(text)) == text


@given(_STACKS)
def test_each_stack_is_one_line(stacks: list[tuple[str, list[tuple[str, FrameKind]], int]]) -> None:
    lines = list(folded_lines(_profile(stacks), ANNOTATED))
    assert all(printable(line) == line for line in lines)
    assert len(folded(_profile(stacks), ANNOTATED).split(b"\n")) == len(lines) + 1


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        profile = read_folded(data)
    except RenderError as error:
        message = str(error)
    else:
        message = ""
        assert read_folded(folded(profile)).total == profile.total
    assert printable(message) == message


def test_folded_is_sorted_and_merged(build: Build) -> None:
    assert folded(build("b;z 1", "a;y 2", "b;z 3")) == b"a;y 2\nb;z 4\n"


def test_an_empty_profile_is_empty_text(build: Build) -> None:
    assert folded(build()) == b""
    assert read_folded(b"").samples == ()


def test_folded_escapes_semicolons_and_newlines() -> None:
    profile = Profile(unit="samples", samples=(ProfileSample((), 1, "a;b 9\nevil"),), frames=())
    assert folded(profile) == b"a\\x3bb 9\\x0aevil 1\n"
    assert read_folded(folded(profile)).samples[0].comm == "a;b 9\\x0aevil"


def test_folded_escapes_a_leading_number_sign(build: Build) -> None:
    assert folded(build("#comm;#f 1")) == b"\\x23comm;#f 1\n"
    assert read_folded(b"\\x23comm;#f 1\n").samples[0].comm == "#comm"


def test_annotations_follow_the_kind(build: Build) -> None:
    profile = build("a;main;i:inl;j:jit;k:read;n:[lost: x] 1")
    assert folded(profile, ANNOTATED) == b"a;main;inl_[i];jit_[j];read_[k];[lost: x] 1\n"
    assert folded(profile) == b"a;main;inl;jit;read;[lost: x] 1\n"


def test_a_name_that_looks_annotated_is_escaped(build: Build) -> None:
    assert folded(build("a;f_[k] 1")) == b"a;f\\x5f[k] 1\n"


def test_frames_hold_spaces_and_the_value_follows_the_last() -> None:
    profile = read_folded(b"my comm;std::map<int, long>::find 12\r\n")
    assert profile.samples[0] == ProfileSample((0,), 12, "my comm")
    assert profile.frames[0] == Frame("std::map<int, long>::find", FrameKind.USER)


def test_annotations_become_kinds() -> None:
    kinds = [frame.kind for frame in read_folded(b"a;f;g_[i];h_[j];r_[k];[lost: x] 1").frames]
    user, inlined, jit = FrameKind.USER, FrameKind.INLINED, FrameKind.JIT
    assert kinds == [user, inlined, jit, FrameKind.KERNEL, FrameKind.NOTE]


def test_above_a_single_delimiter_all_is_kernel_code() -> None:
    profile = read_folded(b"a;main;-;read;vfs_read 1\nb;read 1\n")
    frames = [[profile.frames[index] for index in sample.stack] for sample in profile.samples]
    assert [frame.kind for frame in frames[0]] == [
        FrameKind.USER,
        FrameKind.NOTE,
        FrameKind.KERNEL,
        FrameKind.KERNEL,
    ]
    assert frames[1] == [Frame("read", FrameKind.USER)]


def test_chains_with_two_delimiters_stay_as_they_are() -> None:
    text = b"target;main;-;read;--;vfs;-;waker 3\n"
    assert folded(read_folded(text)) == text


def test_blank_lines_and_comments_are_skipped() -> None:
    assert read_folded(b"\xef\xbb\xbf# written by a tool\n\n  \na;f 1\n\n").total == 1


def test_invalid_utf8_is_spelled_out() -> None:
    assert read_folded(b"a;f\xff 1").frames[0].name == "f\\xff"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"a;f 1.5", "line 2: value 1.5 is a fraction"),
        (b"a;f", "'a;f' after the last space is not a value"),
        (b"a;f x", "'x' after the last space"),
        (b"7", "no stack before 7"),
        (b"a -3", "'-3' after the last space"),
        (b"a 1_000", "'1_000'"),
        (b"a 9999999999999999999", "more than 18 digits"),
        (b"a;\x1b[31m x", r"'a;\\x1b\[31m x'"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: bytes, words: str) -> None:
    with pytest.raises(RenderError, match=words) as caught:
        read_folded(b"a;ok 1\n" + line)
    assert "line 2" in str(caught.value)
    assert "whole number" in str(caught.value)

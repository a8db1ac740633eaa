"""Stacks as drawn: process frames, delimiters, merging."""

from collections.abc import Callable

import pytest

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.render.stack import PLAIN, StackStyle, drawn_stacks, process_frame
from pyprof.symbolize.frame import Frame, FrameKind

Build = Callable[..., Profile]


def _names(profile: Profile, style: StackStyle = PLAIN) -> list[list[str]]:
    drawn = drawn_stacks(profile, style)
    return [[drawn.labels[label].name for label in stack] for stack in drawn.stacks]


@pytest.mark.parametrize(
    ("style", "name"),
    [
        (PLAIN, "sh"),
        (StackStyle(pids=True), "sh-7"),
        (StackStyle(tids=True), "sh-7/9"),
        (StackStyle(pids=True, tids=True), "sh-7/9"),
    ],
)
def test_the_process_frame_shows_the_ids_asked_for(style: StackStyle, name: str) -> None:
    assert process_frame(ProfileSample((), 1, "sh", 7, 9), style) == Frame(name, FrameKind.PROCESS)


def test_unknown_ids_are_not_shown() -> None:
    frame = process_frame(ProfileSample((), 1, "sh"), StackStyle(pids=True, tids=True))
    assert frame == Frame("sh", FrameKind.PROCESS)


def test_a_sample_without_a_comm_has_no_process_frame(build: Build) -> None:
    assert _names(build(";main 1")) == [["main"]]


def test_a_sample_without_anything_says_so(build: Build) -> None:
    profile = Profile(unit="samples", samples=(ProfileSample((), 3, ""),), frames=())
    assert _names(profile) == [["[no stack]"]]


def test_the_delimiter_stands_between_user_and_kernel(build: Build) -> None:
    profile = build("a;main;k:read;k:vfs_read 1")
    assert _names(profile, StackStyle(delimited=True)) == [["a", "main", "-", "read", "vfs_read"]]


@pytest.mark.parametrize("line", ["a;k:idle 1", "a;main 1", "a 1", "a;main;n:-;k:read 1"])
def test_no_delimiter_without_two_sides_or_where_one_stands(build: Build, line: str) -> None:
    profile = build(line)
    assert _names(profile, StackStyle(delimited=True)) == _names(profile)


def test_equal_stacks_are_merged(build: Build) -> None:
    drawn = drawn_stacks(build("a;f 1", "a;f 2", "b;f 4"), PLAIN)
    assert sorted(drawn.values) == [3, 4]


def test_ids_keep_stacks_of_processes_apart() -> None:
    samples = (ProfileSample((), 1, "a", 1), ProfileSample((), 1, "a", 2))
    profile = Profile(unit="samples", samples=samples, frames=())
    assert len(drawn_stacks(profile, PLAIN).stacks) == 1
    assert len(drawn_stacks(profile, StackStyle(pids=True)).stacks) == 2


def test_labels_of_one_name_and_kind_share_a_group(build: Build) -> None:
    drawn = drawn_stacks(build("a;main@/bin/x 1", "a;main@/bin/y 1", "a;k:main 1"), PLAIN)
    groups = {
        (label.kind, group)
        for label, group in zip(drawn.labels, drawn.groups, strict=True)
        if label.name == "main"
    }
    assert len(groups) == 2


def test_samples_without_a_value_are_left_out(build: Build) -> None:
    assert _names(build("a;f 0")) == []

"""The table of the hottest functions."""

import json
from collections.abc import Callable

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.render.flame import SEVERAL_MODULES
from pyprof.render.top import TopRow, top_json, top_rows, top_text
from pyprof.symbolize.frame import Frame, FrameKind

Build = Callable[..., Profile]


def test_total_counts_a_recursive_stack_once(build: Build) -> None:
    assert top_rows(build("a;f;f;f 3", "a;f 1")) == [TopRow("f", FrameKind.USER, "", 4, 4)]


def test_rows_are_ordered_by_what_is_asked(build: Build) -> None:
    profile = build("a;main;f 3", "a;main 1", "a;main;g 3")
    assert [row.name for row in top_rows(profile)] == ["f", "g", "main"]
    assert [row.name for row in top_rows(profile, by="total")] == ["main", "f", "g"]
    assert [row.name for row in top_rows(profile, limit=1)] == ["f"]
    assert len(top_rows(profile, limit=None)) == 3


def test_selves_sum_to_the_total(web_server: Profile) -> None:
    assert sum(row.self_value for row in top_rows(web_server, limit=None)) == web_server.total


def test_equal_names_of_different_kinds_have_rows_of_their_own(build: Build) -> None:
    assert len(top_rows(build("a;read 1", "a;k:read 1"))) == 2


def test_equal_names_of_different_modules_share_a_row(build: Build) -> None:
    rows = top_rows(build("a;main@/bin/a 1", "b;main@/bin/b 2"))
    assert rows == [TopRow("main", FrameKind.USER, SEVERAL_MODULES, 3, 3)]


def test_a_sample_without_frames_counts_for_its_thread_name(build: Build) -> None:
    assert top_rows(build("kworker 2")) == [TopRow("kworker", FrameKind.PROCESS, "", 2, 2)]


def test_text_is_aligned_and_tells_losses(web_server: Profile) -> None:
    lines = top_text(web_server, limit=2).splitlines()
    assert lines[0].startswith("cpu profile: 100 samples, all processes, cpu-clock at 99 Hz, 30 s")
    assert "LOST: 10 lost: stack map full (kept without their stacks)" in lines
    assert lines[-3:] == [
        "self  self %  total  total %  function",
        "  40   40.0%     40    40.0%  vfs_read [kernel]",
        "  25   25.0%     25    25.0%  std::map<int, long>::find(int const&)",
    ]


def test_text_of_an_empty_profile_has_no_table(build: Build) -> None:
    assert top_text(build()) == "profile: 0 samples\nlosses unknown: the source does not record them\n"


def test_text_holds_no_control_characters(build: Build, hostile_names: tuple[str, ...]) -> None:
    names = [name for name in hostile_names if ";" not in name and "\n" not in name]
    text = top_text(build(*(f"a{name};{name}@{name} 1" for name in names)), limit=None)
    assert not {"\x1b", "\x07", "\x00", "\u202e", "\ud800"} & set(text)


def test_json_holds_rows_and_caption(web_server: Profile) -> None:
    data = json.loads(top_json(web_server, by="total", limit=1))
    main = {"name": "main", "kind": "user", "module": SEVERAL_MODULES, "self": 5, "total": 90}
    assert data["rows"] == [main]
    assert data["total"] == 100
    assert data["by"] == "total"


def test_kernel_is_in_one_pair_of_brackets() -> None:
    frame = Frame("vfs_read", FrameKind.KERNEL, "[kernel]", 1)
    profile = Profile(unit="samples", samples=(ProfileSample((0,), 1, "cat"),), frames=(frame,))
    assert top_text(profile).splitlines()[-1].endswith("vfs_read [kernel]")

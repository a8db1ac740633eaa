"""Kinds and modules that follow from a mapping, and the mark for those that do not."""

import pytest

from pyprof.profiler.profile import Mapping
from pyprof.render.pprof_origin import (
    Origin,
    escaped,
    implied_origin,
    is_made,
    made_mapping,
    unescaped,
    unknown_name,
)
from pyprof.symbolize.frame import FrameKind

KERNEL_START = 0xFFFFFFFF81000000


@pytest.mark.parametrize(
    ("path", "start", "expected"),
    [
        ("/usr/bin/app", 0, Origin(FrameKind.USER, "/usr/bin/app")),
        ("[vdso]", 0, Origin(FrameKind.USER, "[vdso]")),
        ("[vsyscall]", 0xFFFFFFFFFF600000, Origin(FrameKind.USER, "[vsyscall]")),
        ("", 0, Origin(FrameKind.USER, "")),
        ("//anon", 0, Origin(FrameKind.JIT, "")),
        ("[anon:v8]", 0, Origin(FrameKind.JIT, "")),
        ("[kernel.kallsyms]", KERNEL_START, Origin(FrameKind.KERNEL, "")),
        ("[guest.kernel.kallsyms.42]", KERNEL_START, Origin(FrameKind.KERNEL, "")),
        ("/usr/lib/debug/boot/vmlinux-6.1.0", KERNEL_START, Origin(FrameKind.KERNEL, "")),
        ("[nf_tables]", KERNEL_START, Origin(FrameKind.KERNEL, "nf_tables")),
        ("/lib/modules/6.1.0/kernel/fs/ext4/ext4.ko.zst", KERNEL_START, Origin(FrameKind.KERNEL, "ext4")),
    ],
)
def test_mapping_implies_kind_and_module(path: str, start: int, expected: Origin) -> None:
    assert implied_origin(Mapping(start, start + 4096, 0, path), "f", start + 8) == expected


def test_frame_without_mapping_is_a_note_only_in_brackets_and_without_address() -> None:
    assert implied_origin(None, "[lost: stack map full]", 0).kind is FrameKind.NOTE
    assert implied_origin(None, "[lost: stack map full]", 1).kind is FrameKind.USER
    assert implied_origin(None, "lost", 0).kind is FrameKind.USER
    assert implied_origin(None, "", 0).kind is FrameKind.USER


@pytest.mark.parametrize("kind", FrameKind)
def test_escape_keeps_every_kind_and_module(kind: FrameKind) -> None:
    origin = Origin(kind, "/opt/a:b.so")
    assert unescaped(escaped(origin)) == origin


@pytest.mark.parametrize(
    "text", ["", "main", "_ZN6pyprof3jitEv", "pyprof:", "pyprof:alien:x", "pyprof:JIT:x"]
)
def test_ordinary_system_name_is_no_escape(text: str) -> None:
    assert unescaped(text) is None


def test_made_mappings_are_known_again() -> None:
    for made in (
        made_mapping(FrameKind.KERNEL, ""),
        made_mapping(FrameKind.KERNEL, "x]"),
        made_mapping(FrameKind.JIT, "y"),
    ):
        assert made is not None
        assert is_made(made)
        assert not is_made(made._replace(limit=made.limit - 1))
    assert made_mapping(FrameKind.USER, "/usr/bin/app") is None


@pytest.mark.parametrize(
    ("mapping", "address", "expected"),
    [
        (Mapping(0, 1, 0, "/lib/libc.so.6"), 0x1234, "[libc.so.6+0x1234]"),
        (Mapping(0, 1, 0, "[vdso]"), 0x10, "[vdso+0x10]"),
        (Mapping(0, 1, 0, "//anon"), 0x10, "[anon+0x10]"),
        (Mapping(0, 1, 0, ""), 0x10, "[unknown+0x10]"),
        (None, 0x10, "[0x10]"),
        (None, 0, "[unknown]"),
    ],
)
def test_unknown_frame_is_named_by_its_address(mapping: Mapping | None, address: int, expected: str) -> None:
    assert unknown_name(mapping, address) == expected

"""What a pprof location says about the kind and the module of its frames, and how pyprof says the rest.

pprof has functions and mappings but neither frame kinds nor modules. Most follow from the mapping:

    mapping                                                  kind    module
    [kernel.kallsyms]_text, [kernel], /boot/vmlinux-6.1.0    KERNEL  ""
    [nf_conntrack] in the upper half of the address space    KERNEL  "nf_conntrack"
    /lib/modules/6.1.0/kernel/net/nf_conntrack.ko.xz         KERNEL  "nf_conntrack"
    //anon, [anon:name]                                      JIT     ""
    any other, [vdso] and [vsyscall] too                     USER    its path
    none, address 0, a function named [in brackets]          NOTE    ""
    none                                                     USER    ""

and lines of a location before its last one are INLINED. Where that gives the wrong answer, the function's
`system_name` holds the right one, `pyprof:KIND:MODULE`; otherwise it repeats the function's name:

    pyprof:jit:            pyprof:user:/opt/app/plugin.so            pyprof:inlined:/usr/bin/app

Kernel and JIT frames that have no mapping in the Profile are written in one made for them, which covers
half of the address space and vanishes when the file is read.

Source: perf-record(1) and perf_to_profile for the names in brackets.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from pyprof.profiler.profile import Mapping
from pyprof.symbolize.frame import FrameKind

KERNEL_PATH = "[kernel.kallsyms]"

_ANONYMOUS_PATH = "//anon"
_UPPER_HALF = 1 << 63  # kernel addresses start here or above, user addresses end below
_LAST_ADDRESS = (1 << 64) - 1
_BASE_LIMIT = 255  # characters of a file name, NAME_MAX in linux/limits.h
_NO_MODULE = re.compile(r"\[(guest\.)?kernel[.\]]|(.*/)?vmlinux(-[^/]*)?$")
_MODULE_FILE = re.compile(r"(?:.*/)?([^/]+)\.ko(?:\.gz|\.xz|\.zst|\.debug)?$")
_IN_BRACKETS = re.compile(r"\[(.+)\]$")
_ESCAPE = re.compile(r"pyprof:([a-z]+):(.*)")
_ESCAPED_KINDS = {kind.value: kind for kind in FrameKind}


class Origin(NamedTuple):
    """Where a frame's code comes from."""

    kind: FrameKind
    module: str


def implied_origin(mapping: Mapping | None, name: str, address: int) -> Origin:
    """Return what a location's mapping says of a frame; `name` is "" where no function is known."""
    if mapping is None:
        is_note = address == 0 and _IN_BRACKETS.match(name)
        return Origin(FrameKind.NOTE if is_note else FrameKind.USER, "")
    return _mapping_origin(mapping)


@lru_cache(maxsize=1024)  # asked for each frame of a profile
def _mapping_origin(mapping: Mapping) -> Origin:
    path = mapping.path
    if _NO_MODULE.match(path):
        return Origin(FrameKind.KERNEL, "")
    if path.startswith((_ANONYMOUS_PATH, "[anon")):
        return Origin(FrameKind.JIT, "")
    if match := _MODULE_FILE.match(path):
        return Origin(FrameKind.KERNEL, match[1])
    if mapping.start >= _UPPER_HALF and path != "[vsyscall]" and (match := _IN_BRACKETS.match(path)):
        return Origin(FrameKind.KERNEL, match[1])
    return Origin(FrameKind.USER, path)


def unknown_name(mapping: Mapping | None, address: int) -> str:
    """Return the name of a frame that has none: `[libc.so.6+0x1234]`, `[0x7f0012]` without a mapping."""
    if mapping is None:
        return f"[{address:#x}]" if address else "[unknown]"
    base = mapping.path.rpartition("/")[2].strip("[]") or "unknown"
    return f"[{base[:_BASE_LIMIT]}+{address:#x}]"


def escaped(origin: Origin) -> str:
    """Return the `system_name` that says `origin`."""
    return f"pyprof:{origin.kind.value}:{origin.module}"


def unescaped(system_name: str) -> Origin | None:
    """Return the origin that a `system_name` says, None when it is an ordinary one."""
    match = _ESCAPE.fullmatch(system_name)
    if match is None or match[1] not in _ESCAPED_KINDS:
        return None
    return Origin(_ESCAPED_KINDS[match[1]], match[2])


def made_mapping(kind: FrameKind, module: str) -> Mapping | None:
    """Return the mapping to write for a frame that has none; None when it needs none."""
    if kind is FrameKind.KERNEL:
        path = f"[{module}]" if module else KERNEL_PATH
        return Mapping(start=_UPPER_HALF, limit=_LAST_ADDRESS, file_offset=0, path=path)
    if kind is FrameKind.JIT:
        return Mapping(start=0, limit=_UPPER_HALF, file_offset=0, path=_ANONYMOUS_PATH)
    return None


def is_made(mapping: Mapping) -> bool:
    """Return whether a mapping is one of `made_mapping`."""
    kind = FrameKind.KERNEL if mapping.start else FrameKind.JIT
    match = _IN_BRACKETS.match(mapping.path)
    return mapping in (made_mapping(kind, match[1] if match else ""), made_mapping(kind, ""))

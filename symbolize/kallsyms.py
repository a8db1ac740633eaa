"""Kernel symbols, from the text of /proc/kallsyms.

    ffffffff81000000 T _stext
    ffffffff81000000 T __pi__text
    ffffffff822090c8 T _etext
    ffffffffc0201000 t ftrace_trampoline	[__builtin__ftrace]
    ffffffffc03f5000 t nf_conntrack_in	[nf_conntrack]
    ffffffffc0a1d6f4 t bpf_prog_6deef7357e7b4530_sd_fw	[bpf]

The core kernel comes sorted, modules and BPF programs follow in the order they were loaded. All
addresses have the same number of digits, so sorting the lines as text sorts them by address: 122,000
lines are ready in 20 ms, and only the lines that are asked for are taken apart. (numpy needs 70 ms for
its import alone.)

Source: man 5 proc (kallsyms); kernel/kallsyms.c; Documentation/admin-guide/sysctl/kernel.rst (kptr_restrict).
"""

import re
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from pyprof.symbolize.text import printable

_TEXT_KINDS = b"tTwW"
_SYMBOL_LIMIT = 1 << 20  # bytes; a symbol followed by a gap does not reach further than this
_END_MARKERS = frozenset({b"_etext", b"_einittext"})  # no code of the core kernel from here on
# Labels that the linker script puts around groups of functions, at the address of the first one.
_MARKER = re.compile(rb"(__)?(pi_+)?_?[es]?(init)?text|\w+_text_(start|end)")


class KernelSymbol(NamedTuple):
    """The function that a kernel address belongs to."""

    name: str  # printable; suffixes such as ".isra.0" and ".cold" are kept
    module: str  # "nf_conntrack", "bpf"; "" for the core kernel
    offset: int  # bytes from the start of the function


class KernelSymbols:
    """Functions of the running kernel, its modules and BPF programs, by absolute address."""

    def __init__(self, text: bytes, hidden: str = "") -> None:
        """Take the text of /proc/kallsyms; `hidden` is the reason when it holds no addresses."""
        self.hidden = hidden  # one line for the user, "" when symbols can be looked up
        self._digits = max(text.find(b" "), 0)
        self._lines = text.rstrip(b"\n").split(b"\n") if text and not hidden else []
        self._lines.sort()
        self._known: dict[int, KernelSymbol | None] = {}  # start of a function -> its symbol, offset 0

    def symbol(self, address: int) -> KernelSymbol | None:
        """Return the function that contains an absolute address, None when no function does.

        A function ends where the next symbol starts, and after 1 MiB at the latest. Where several names
        share an address, a global one wins over a local or weak one, then a function over a label of the
        linker script, then fewer leading underscores, then the shorter, then the alphabetically first.
        """
        # "g" sorts behind every hexadecimal digit and every space, so equal addresses are included.
        index = bisect_right(self._lines, b"%0*xg" % (self._digits, address)) - 1
        while index >= 0 and self._lines[index][self._digits + 1] not in _TEXT_KINDS:
            index -= 1
            if index >= 0 and address - self._start(index) >= _SYMBOL_LIMIT:
                return None
        if index < 0:
            return None
        start = self._start(index)
        if address - start >= _SYMBOL_LIMIT:
            return None
        if start not in self._known:
            self._known[start] = self._best_alias(index)
        found = self._known[start]
        return found and found._replace(offset=address - start)

    def _start(self, index: int) -> int:
        return int(self._lines[index][: self._digits], 16)

    def _best_alias(self, index: int) -> KernelSymbol | None:
        """Return the name for the address of line `index`, the last line with that address."""
        digits = self._digits
        prefix = self._lines[index][:digits]
        aliases = []
        while index >= 0 and self._lines[index].startswith(prefix):
            kind = self._lines[index][digits + 1]
            name, _, module = self._lines[index][digits + 3 :].partition(b"\t")
            if name in _END_MARKERS and not module:
                return None
            if kind in _TEXT_KINDS:
                aliases.append((_rank(kind, name), name, module.strip(b"[] ")))
            index -= 1
        _, name, module = min(aliases)
        return KernelSymbol(printable(name), printable(module), 0)


def kernel_symbols(path: str = "/proc/kallsyms", *, sysctl_folder: str = "/proc/sys/kernel") -> KernelSymbols:
    """Return the symbols of the running kernel; `hidden` says why when there are none to see."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        return KernelSymbols(b"", _hidden(f"{path}: {error.strerror}", "give access to it"))
    if re.match(rb"[0-9a-fA-F]+ \S \S", text) is None:
        return KernelSymbols(b"", _hidden(f"{path} is empty", "use a kernel with CONFIG_KALLSYMS"))
    if re.search(rb"^0*[1-9a-fA-F]", text, re.MULTILINE) is None:
        return KernelSymbols(b"", _restriction(sysctl_folder))
    return KernelSymbols(text)


def _restriction(sysctl_folder: str) -> str:
    try:
        value = printable((Path(sysctl_folder) / "kptr_restrict").read_bytes().strip(), 20)
    except OSError:
        value = "unknown"
    if value == "2":
        return _hidden("kernel.kptr_restrict=2", "set it to 1")
    return _hidden(f"kernel.kptr_restrict={value}, CAP_SYSLOG missing", "run as root")


def _hidden(cause: str, remedy: str) -> str:
    return f"kernel symbols hidden ({cause}): kernel frames shown as [kernel]; {remedy} or use -U"


def _rank(kind: int, name: bytes) -> tuple[bool, bool, int, int]:
    underscores = len(name) - len(name.lstrip(b"_"))
    return kind != ord("T"), _MARKER.fullmatch(name) is not None, underscores, len(name)

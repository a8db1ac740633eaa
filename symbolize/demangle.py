"""Readable names for the symbols of C++ and Rust compilers.

    _ZNSt6vectorIiSaIiEE9push_backERKi        std::vector<int, std::allocator<int> >::push_back
    _ZN4core3fmt9Formatter3pad17h9b2b3a0e5b4d1b31E    core::fmt::Formatter::pad
    _ZN2ns4workEv.isra.0                      ns::work.isra.0
    _RNvC6_123foo3bar                         123foo::bar

A name in a graph is read, not linked: it has the scope and the template arguments, but no return type, no
list of arguments and no hash, so that the overloads of a function share a frame. C++ goes through
libstdc++, which numpy's wheels need too, so that every machine spells a name in one way; it knows Rust's
first scheme as well. Rust's v0 scheme goes through pycxxfilt where that is installed and otherwise stays
mangled.

A mangled name of 270 bytes can stand for 2 GB of text. Call this only in a process whose memory and time
are limited.

Source: Itanium C++ ABI, section 5.1; rustc-demangle (legacy.rs); Rust RFC 2603.
"""

import ctypes
import importlib
import re
from collections.abc import Callable
from functools import cache

from pyprof.symbolize.signature import without_signature
from pyprof.symbolize.text import ELLIPSIS, NAME_LIMIT

MANGLED_LIMIT = 4096  # characters; a longer name is left as it is

_MANGLED = re.compile(r"_{1,4}Z|_R[A-Z]")
_TEXT_BYTES = 1 << 16  # of what libstdc++ returns; the name in a longer text would be cut anywhere
_NOISE = re.compile(r"(\.llvm\.[0-9A-F]+|\.\d+)+")  # of a function that link-time optimization moved
_RUST_LEGACY = re.compile(r"_ZN.*17h[0-9a-f]{16}E")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$|(\.\.)|(?:^|(?<=::))_(?=\$)")
_RUST_CHARACTERS = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}

_Demangler = Callable[[str], str]


def is_mangled(name: str) -> bool:
    """Return whether a name looks like one that `readable_name` would change."""
    return _MANGLED.match(name) is not None


def load() -> None:
    """Load the demanglers now: later, the process may not be allowed to read their files."""
    _libstdcxx()
    _pycxxfilt()


def readable_name(name: str) -> str:
    """Return a symbol's name as its author wrote it, or `name` itself when that cannot be told.

    At most 4,096 characters, or as long as `name`. Suffixes such as ".cold" and ".isra.0" are kept,
    the numbers and hashes that link-time optimization appends are not.
    """
    if not is_mangled(name) or len(name) > MANGLED_LIMIT or not name.isascii():
        return name
    try:
        text = _rust_v0_name(name) if name.startswith("_R") else _itanium_name(name)
    except Exception:  # whatever a demangler makes of a hostile name, the name itself is still there
        return name
    return (text if len(text) <= NAME_LIMIT else text[: NAME_LIMIT - 1] + ELLIPSIS) or name


def _itanium_name(name: str) -> str:
    name = name[name.index("Z") - 1 :]
    if legacy := _RUST_LEGACY.match(name):
        text = _RUST_HASH.sub("", _libstdcxx()(legacy.group()))
        return _RUST_ESCAPE.sub(_rust_character, text) + _kept_suffix(name[legacy.end() :])
    mangled, dot, suffix = name.partition(".")
    return without_signature(_libstdcxx()(mangled)) + _kept_suffix(dot + suffix)


def _rust_v0_name(name: str) -> str:
    mangled, dot, suffix = name.partition(".")
    return _pycxxfilt()(mangled) + _kept_suffix(dot + suffix)


def _kept_suffix(suffix: str) -> str:
    return "" if _NOISE.fullmatch(suffix) else suffix


def _rust_character(match: re.Match[str]) -> str:
    code, dots = match.groups()
    if code is None:
        return "::" if dots else ""
    return _RUST_CHARACTERS.get(code) or chr(int(code[1:], 16))


@cache
def _libstdcxx() -> _Demangler:
    """Return a function from a mangled name to its text. It raises when the name is not a mangled one."""
    library = ctypes.CDLL("libstdc++.so.6")
    demangle, free = library.__cxa_demangle, ctypes.CDLL(None).free
    demangle.restype = ctypes.c_void_p
    demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    free.argtypes = [ctypes.c_void_p]

    def demangled(name: str) -> str:
        address = demangle(name.encode("ascii"), None, None, None)
        if address is None:
            raise ValueError(name)
        try:
            text = _c_string(address, _TEXT_BYTES)
            if len(text) == _TEXT_BYTES:
                raise ValueError(name)
            return text.decode("utf-8", "replace")
        finally:
            free(address)

    return demangled


def _c_string(address: int, limit: int) -> bytes:
    """Return the bytes up to the NUL, which is there, at most `limit` of them."""
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_char * limit)).contents.value


@cache
def _pycxxfilt() -> _Demangler:
    """Return a function from a Rust v0 name to its text. It raises when the name is not one."""
    try:
        demangle: _Demangler = importlib.import_module("pycxxfilt").rust_demangle
    except ImportError:
        return _unchanged
    return demangle


def _unchanged(name: str) -> str:
    return name

"""The files whose code a command will run, as far as that can be told before it runs.

./report.py   "#!/usr/bin/env python3"  ->  /usr/bin/python3, libc, the dynamic linker, the vdso
"""

import os
import shutil
from pathlib import PurePath

from pyprof.profiler.binaries import open_regular
from pyprof.profiler.executables import VDSO
from pyprof.profiler.proc import FileMapping, executable_mappings
from pyprof.profiler.profile import Mapping

# Most programs map the same ones as this process does.
COMMON_LIBRARIES = ("libc.so", "ld-linux", "libm.so", "libstdc++.so", "libgcc_s.so")
SHEBANG_BYTES = 256  # include/uapi/linux/binfmts.h: BINPRM_BUF_SIZE


def command_files(arguments: tuple[str, ...]) -> list[FileMapping]:
    """Return the program, or the interpreter of a script, and what nearly every program maps."""
    program = shutil.which(arguments[0])
    paths = [program, *_interpreters(program)] if program else []
    own = [file for file in executable_mappings(os.getpid()) if _is_common(file.mapping.path)]
    return [*filter(None, map(_file, paths)), *own]


def _is_common(path: str) -> bool:
    return path == VDSO or PurePath(path).name.startswith(COMMON_LIBRARIES)


def _interpreters(program: str) -> list[str]:
    """Return what a script's first line names: the interpreter, and the program that env is given."""
    descriptor = open_regular(program)
    if descriptor < 0:
        return []
    with open(descriptor, "rb") as file:
        first = file.read(SHEBANG_BYTES).split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return []
    words = [os.fsdecode(word) for word in first[2:].split()]
    found = (shutil.which(word) for word in words[:2] if not word.startswith("-"))
    return [path for path in found if path]


def _file(path: str) -> FileMapping | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    nowhere = Mapping(0, 0, 0, os.path.realpath(path))
    return FileMapping(nowhere, status.st_dev, status.st_ino)

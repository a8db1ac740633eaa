"""Executables: the files that mapped code comes from, each with a number that goes into its frames.

The same file is one executable, however a mapping of it became known: it is told by the file that is
held open, not by its path.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

from pyprof.profiler.binaries import Binaries, FileIdentity, identity_of
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.profile import Mapping

VDSO = "[vdso]"
LIMIT = 8192  # bpf: unwind_exes
OFFSET_LIMIT = 1 << 40  # bpf: FRAME_FILE_SHIFT; no code lies so far into a file


class _Identity(NamedTuple):
    """What tells a file from another."""

    device: int
    inode: int
    size_bytes: int
    changed_ns: int  # of an open file: written in place, it is another
    path: str  # where there is no open file, else ""
    build_id: str  # that the kernel told of what was mapped, which may be another file of that path


@dataclass(slots=True)
class Executable:
    """A file with code that was mapped."""

    file: FileMapping  # the first mapping that was seen
    descriptor: int  # -1: not open, or the vdso
    pieces: dict[int, Mapping] = field(default_factory=dict)  # by file offset: what of it was mapped

    @property
    def is_vdso(self) -> bool:
        return self.file.mapping.path == VDSO

    def mapping_at(self, file_offset: int) -> Mapping:
        """Return the mapping that held a file offset."""
        for piece in self.pieces.values():
            if piece.file_offset <= file_offset < piece.file_offset + piece.limit - piece.start:
                return piece
        return self.file.mapping


class Executables(Sequence[Executable]):
    """All executables of a capture, by number."""

    def __init__(self, binaries: Binaries) -> None:
        self._binaries = binaries
        self._numbers: dict[_Identity, int] = {}
        self._of_files: dict[FileIdentity, int] = {}  # saves a system call for each mapping
        self._list: list[Executable] = []
        self._identities: list[_Identity] = []  # of each

    def __len__(self) -> int:
        return len(self._list)

    @overload
    def __getitem__(self, number: int) -> Executable: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Executable]: ...
    def __getitem__(self, number: int | slice) -> Executable | Sequence[Executable]:
        return self._list[number]

    def number(self, file: FileMapping) -> int | None:
        """Return the number of a mapping's file; None without a file, or when there are too many.

        None too for a mapping too far into its file: a frame has no room for such an offset.
        """
        path = file.mapping.path
        if path != VDSO and (not path.startswith("/") or path.startswith("//")):
            return None
        if file.mapping.file_offset + file.mapping.limit - file.mapping.start > OFFSET_LIMIT:
            return None
        number = self._of_files.get(identity_of(file))
        if number is None:
            number = self._new_number(file)
        if number is not None and file.mapping.limit > file.mapping.start:
            piece, pieces = file.mapping, self._list[number].pieces
            known = pieces.get(piece.file_offset)
            if known is None or known.limit - known.start < piece.limit - piece.start:
                pieces[piece.file_offset] = piece
        return number

    def tell_build_id(self, number: int, build_id: str) -> None:
        """Say which build id the open file really has: mappings of that one, or of none, are of this file."""
        identity = self._identities[number]
        for known in (build_id, ""):
            self._numbers.setdefault(identity._replace(build_id=known), number)

    def _new_number(self, file: FileMapping) -> int | None:
        descriptor = self._binaries.descriptor(file)
        identity = _identity(file, descriptor)
        number = self._numbers.get(identity)
        if number is None:
            if len(self._list) >= LIMIT:
                return None
            number = self._numbers[identity] = len(self._list)
            self._list.append(Executable(file, descriptor))
            self._identities.append(identity)
        if descriptor >= 0:
            self._of_files[identity_of(file)] = number
        return number


def _identity(file: FileMapping, descriptor: int) -> _Identity:
    mapping = file.mapping
    if descriptor < 0:
        return _Identity(file.device, file.inode, 0, 0, mapping.path, mapping.build_id)
    status = os.fstat(descriptor)
    return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, "", mapping.build_id)

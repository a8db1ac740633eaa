"""Names for the frames of a profile: kernel symbols, and user symbols from the unprivileged worker."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from pyprof.profiler.binaries import open_regular
from pyprof.profiler.executables import VDSO
from pyprof.profiler.interrupts import SymbolsSkipped
from pyprof.profiler.profile import Mapping, Profile
from pyprof.profiler.resolve import Unnamed, offset_name
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame import NO_MAPPING, Frame, FrameKind
from pyprof.symbolize.kallsyms import KernelSymbols
from pyprof.symbolize.text import printable
from pyprof.symbolize.vdso import vdso_image
from pyprof.symbolize.worker import Answer, Binary, Request, symbolize

MAX_FAILURES_TOLD = 5
Symbolize = Callable[[Sequence[Request]], Iterable[Answer]]


def with_kernel_names(profile: Profile, kernel: KernelSymbols) -> Profile:
    """Return the profile with its kernel frames named from this machine's symbols."""
    frames = [_kernel_frame(frame, kernel) for frame in profile.frames]
    if frames == list(profile.frames) and not kernel.hidden:
        return profile
    notes = [kernel.hidden] if kernel.hidden and any(map(_is_kernel, frames)) else []
    return _with_notes(replace(profile, frames=tuple(frames)), notes)


def with_user_names(unnamed: Unnamed, *, symbolize: Symbolize = symbolize) -> Profile:
    """Return the profile with its user frames named, as far as the open files tell.

    A frame that keeps its module and offset has no symbol there; a file that could not be read is told
    in the provenance. SymbolsSkipped ends the work early and keeps the names found so far.
    """
    naming = _Naming(unnamed)
    try:
        for answer in symbolize(naming.requests()):
            naming.take(answer)
    except SymbolsSkipped:
        naming.notes.append("symbols were skipped on request; `pyprof render` can look them up later")
    return naming.profile()


def with_build_ids(unnamed: Unnamed, *, symbolize: Symbolize = symbolize) -> Profile:
    """Return the profile with the build ids that its open files have, and no names."""
    mappings = list(unnamed.profile.mappings)
    naming = _Naming(unnamed)
    binaries = [naming.binary(key) for key, mapping in enumerate(mappings) if not mapping.build_id]
    for answer in symbolize([Request(binary, ()) for binary in binaries if binary is not None]):
        mappings[answer.key] = mappings[answer.key]._replace(build_id=answer.build_id)
    return replace(unnamed.profile, mappings=tuple(mappings))


def reopened(profile: Profile) -> Unnamed:
    """Return a saved profile with this machine's files of the same path, for `with_user_names`.

    The worker refuses a file whose build id differs; without one in the profile no file is believed.
    The caller closes the descriptors.
    """
    wanted = {frame.mapping for frame in profile.frames if is_unnamed(frame)}
    descriptors = [
        open_regular(mapping.path) if index in wanted and mapping.build_id else -1
        for index, mapping in enumerate(profile.mappings)
    ]
    return Unnamed(profile, tuple(descriptors), is_live=False)


def is_unnamed(frame: Frame) -> bool:
    """Return whether a user frame still has its module and offset for a name."""
    return (
        frame.kind is FrameKind.USER
        and frame.mapping != NO_MAPPING
        and frame.name == offset_name(frame.module, frame.address)
    )


def is_unnamed_kernel(frame: Frame) -> bool:
    """Return whether a kernel frame found no symbol although addresses are not hidden."""
    return _is_kernel(frame) and frame.name.startswith("[kernel+")


class _Naming:
    """Requests for the worker, and its answers put back into the frames."""

    def __init__(self, unnamed: Unnamed) -> None:
        self._profile = unnamed.profile
        self._frames = list(unnamed.profile.frames)
        self._mappings = list(unnamed.profile.mappings)
        self._descriptors = unnamed.descriptors
        self._is_live = unnamed.is_live
        self._wanted: dict[int, dict[int, list[int]]] = {}  # mapping: offset: frame indices
        self.notes: list[str] = []
        self._failures: dict[str, str] = {}

    def requests(self) -> list[Request]:
        """Return one request for each mapping with unnamed frames, in order."""
        for index, frame in enumerate(self._frames):
            if is_unnamed(frame):
                self._wanted.setdefault(frame.mapping, {}).setdefault(frame.address, []).append(index)
        requests = []
        for key, offsets in sorted(self._wanted.items()):
            binary = self.binary(key)
            if binary is not None:
                requests.append(Request(binary, tuple(offsets)))
        return requests

    def take(self, answer: Answer) -> None:
        path = self._mappings[answer.key].path
        if answer.failure:
            self._failures.setdefault(PurePosixPath(path).name, answer.failure)
        if answer.build_id:
            self._mappings[answer.key] = self._mappings[answer.key]._replace(build_id=answer.build_id)
        for name, indices in zip(answer.names, self._wanted[answer.key].values(), strict=False):
            for index in indices if name else ():
                self._frames[index] = self._frames[index]._replace(name=name)

    def profile(self) -> Profile:
        told = sorted(self._failures.items())
        notes = [f"no symbols of {printable(name)}: {why}" for name, why in told[:MAX_FAILURES_TOLD]]
        if len(told) > MAX_FAILURES_TOLD:
            notes.append(f"no symbols of {len(told) - MAX_FAILURES_TOLD} more files")
        changed = replace(self._profile, frames=tuple(self._frames), mappings=tuple(self._mappings))
        return _with_notes(changed, [*self.notes, *notes])

    def binary(self, key: int) -> Binary | None:
        """Return where a mapping's symbols can be read; None, with the reason kept, when nowhere."""
        mapping: Mapping = self._mappings[key]
        if not self._is_live and not mapping.build_id:
            why = "no build id was saved: this machine's file may be another"
            self._failures.setdefault(PurePosixPath(mapping.path).name, why)
            return None
        if mapping.path == VDSO:
            return self._vdso(key, mapping.build_id)
        if self._descriptors[key] < 0:
            self._failures.setdefault(PurePosixPath(mapping.path).name, "the file could not be opened")
            return None
        return Binary(key, self._descriptors[key], b"", mapping.build_id)

    def _vdso(self, key: int, build_id: str) -> Binary | None:
        try:
            return Binary(key, -1, vdso_image(), build_id)
        except SymbolizeError as error:
            self._failures.setdefault(VDSO, str(error))
            return None


def _kernel_frame(frame: Frame, kernel: KernelSymbols) -> Frame:
    if not _is_kernel(frame) or not frame.name.startswith("["):
        return frame
    symbol = kernel.symbol(frame.address)
    if symbol is None:
        return frame if kernel.hidden else frame._replace(name=f"[kernel+{frame.address:#x}]")
    return frame._replace(name=sys.intern(symbol.name), module=symbol.module or frame.module)


def _is_kernel(frame: Frame) -> bool:
    return frame.kind is FrameKind.KERNEL


def _with_notes(profile: Profile, notes: Sequence[str]) -> Profile:
    fresh = [note for note in notes if note not in profile.provenance.notes]
    if not fresh:
        return profile
    return replace(profile, provenance=replace(profile.provenance, notes=(*profile.provenance.notes, *fresh)))

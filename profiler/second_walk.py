"""Walking copied stacks in user space: those the kernel could not walk yet, and those to verify.

The call frame information is read by a confined worker, straight from the files; nothing of the tables
that the kernel's walk uses is in it.
"""

import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pyprof.profiler.capture import (
    END_COMPLETE,
    END_COPY_CUT,
    END_GUESSED,
    END_NO_MAPPING,
    END_NO_PROGRESS,
    END_NO_ROW,
    END_NOT_READY,
    END_TOO_DEEP,
    END_UNSUPPORTED,
    STACK_UNREADABLE,
    Sample,
)
from pyprof.profiler.copies import CopiedSample
from pyprof.profiler.engine import Counts
from pyprof.profiler.executables import Executable, Executables
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import Image
from pyprof.profiler.unwind_maps import FrameWord, frame_word, word_of
from pyprof.symbolize.confined import Confined, EndedError, Limits
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import Image as ElfImage
from pyprof.symbolize.layout import mapped_image
from pyprof.symbolize.stack_copy import CodeRange, StackCopy, Walk, WalkEnd
from pyprof.symbolize.vdso import vdso_image

if TYPE_CHECKING:
    from pyprof.symbolize.stack_unwinder import StackUnwinder

TIMEOUT_S = 30.0  # for all stacks together
MAX_WORKERS = 8  # one after the other: each stack that ends one costs itself
MAPPED_BYTES = 64 << 30  # of address space for files; none of it is memory

_ENDS = {
    WalkEnd.COMPLETE: END_COMPLETE,
    WalkEnd.GUESSED: END_GUESSED,
    WalkEnd.NO_MAPPING: END_NO_MAPPING,
    WalkEnd.NO_ROW: END_NO_ROW,
    WalkEnd.UNSUPPORTED: END_UNSUPPORTED,
    WalkEnd.STACK_CUT: END_COPY_CUT,
    WalkEnd.NO_PROGRESS: END_NO_PROGRESS,
    WalkEnd.TOO_DEEP: END_TOO_DEEP,
}
_FIRST_ID = 1 << 32  # of stacks that the kernel does not have; its own have the top bit set
RIP = 16  # in a copy's registers
_RESULT = struct.Struct("<BH")  # end, number of words

ImageOf = Callable[[Sample], Image | None]


class WalkedStack(NamedTuple):
    """A stack that was walked in user space."""

    words: tuple[int, ...]  # leaf first, as the kernel's walk writes them
    end: int  # END_*


def walked_stacks(
    copies: Sequence[CopiedSample], executables: Executables, image_of: ImageOf, max_depth: int
) -> list[WalkedStack]:
    """Return the stack of each copy; END_NOT_READY where the worker did not come to it."""
    ranges = _Ranges(executables, image_of)
    stacks = [
        StackCopy(copy.registers, copy.stack, ranges.of(copy), copy.red_zone_bytes, copy.holes)
        for copy in copies
    ]
    binaries = [executables[number] for number in range(len(executables))]
    deadline_s = time.monotonic() + TIMEOUT_S
    walked: list[WalkedStack] = []
    for _ in range(MAX_WORKERS):
        if len(walked) == len(stacks) or time.monotonic() >= deadline_s:
            break
        walked += _walked_by_worker(_WalkJob(stacks[len(walked) :], binaries, max_depth), deadline_s)
        if len(walked) < len(stacks):  # a worker that ended has met what it cannot take
            walked.append(_leaf_only(stacks[len(walked)]))
    return walked + [_leaf_only(stack) for stack in stacks[len(walked) :]]


def leaf_stacks(
    places: Iterable[tuple[Sample, int]], executables: Executables, image_of: ImageOf
) -> list[WalkedStack]:
    """Return what can be told of samples of which only rip was kept."""
    ranges = _Ranges(executables, image_of)
    copies = [CopiedSample(sample, (*[0] * RIP, rip), b"") for sample, rip in places]
    return [_leaf_only(StackCopy(copy.registers, b"", ranges.of(copy))) for copy in copies]


def _leaf_only(stack: StackCopy) -> WalkedStack:
    """Return what can be told without a walk."""
    pc = stack.registers[RIP]
    for place in stack.ranges:
        if place.start <= pc < place.limit and place.binary >= 0:
            word = word_of(FrameWord(place.binary, pc - place.start + place.file_offset))
            return WalkedStack((word,), END_NOT_READY)
    return WalkedStack((word_of(FrameWord(-1, pc)),), END_NOT_READY)


def with_walked(counts: Counts, samples: Sequence[Sample], stacks: Sequence[WalkedStack]) -> Counts:
    """Return the counts with these samples added, each with its stack; equal ones become one."""
    ids = {words: number for number, words in counts.stacks.items()}
    values = Counter[Sample]()
    for sample in counts.samples:
        values[sample._replace(value=0)] += sample.value
    for sample, stack in zip(samples, stacks, strict=True):
        number = ids.setdefault(stack.words, _FIRST_ID + len(ids)) if stack.words else STACK_UNREADABLE
        values[sample._replace(user_stack=number, user_end=stack.end, value=0)] += sample.value
    merged = tuple(sample._replace(value=value) for sample, value in values.items())
    return counts._replace(samples=merged, stacks={number: words for words, number in ids.items()})


def _walked_by_worker(job: "_WalkJob", deadline_s: float) -> list[WalkedStack]:
    """Return the stacks that one worker walks: all of the job's, or those before one that ended it."""
    keep = {binary.descriptor for binary in job.binaries if binary.descriptor >= 0}
    walked: list[WalkedStack] = []
    with contextlib.suppress(OSError, EndedError, ValueError):
        limits = Limits(int(TIMEOUT_S) + 1, mapping_bytes=MAPPED_BYTES)
        with Confined("stack worker", job, keep, limits) as worker:
            for _ in job.stacks:
                walked.append(_read_stack(worker, deadline_s, job.max_depth, len(job.binaries)))
    return walked


class _Ranges:
    """The executable ranges of program images, each made once."""

    def __init__(self, executables: Executables, image_of: ImageOf) -> None:
        self._executables = executables
        self._image_of = image_of
        # by identity of the files, which are kept so that it stays theirs
        self._made: dict[int, tuple[tuple[FileMapping, ...], tuple[CodeRange, ...]]] = {}

    def of(self, copy: CopiedSample) -> tuple[CodeRange, ...]:
        """Return what was mapped when a copy was taken, or what is known at last."""
        files = copy.files
        if files is None:
            image = self._image_of(copy.sample)
            files = image.frozen_files() if image else ()
        if id(files) not in self._made:
            self._made[id(files)] = files, tuple(self._range(file) for file in files)
        return self._made[id(files)][1]

    def _range(self, file: FileMapping) -> CodeRange:
        mapping, number = file.mapping, self._executables.number(file)
        return CodeRange(mapping.start, mapping.limit, mapping.file_offset, -1 if number is None else number)


class _WalkJob:
    """The worker's job: one result for each stack, in their order."""

    def __init__(self, stacks: Sequence[StackCopy], binaries: Sequence[Executable], max_depth: int) -> None:
        self.stacks = stacks
        self.binaries = binaries
        self.max_depth = max_depth
        self._vdso: ElfImage | None = None

    def load(self) -> None:
        from pyprof.symbolize import stack_unwinder  # noqa: F401, PLC0415 - only the worker walks

        if any(binary.is_vdso for binary in self.binaries):
            with contextlib.suppress(SymbolizeError):
                self._vdso = vdso_image()  # out of reach once confined

    def serve(self, parent: socket.socket) -> None:
        from pyprof.symbolize.stack_unwinder import StackUnwinder  # noqa: PLC0415

        wanted = {place.binary for stack in self.stacks for place in stack.ranges}
        images = [self._image(one) if at in wanted else None for at, one in enumerate(self.binaries)]
        unwinder = StackUnwinder(images)
        for stack in self.stacks:
            walk = _walk(unwinder, stack, self.max_depth)
            words = _words(walk)
            parent.sendall(_RESULT.pack(_ENDS[walk.end], len(words)) + struct.pack(f"<{len(words)}Q", *words))

    def _image(self, binary: Executable) -> ElfImage | None:
        if binary.is_vdso or binary.descriptor < 0:
            return self._vdso if binary.is_vdso else None
        try:
            return mapped_image(binary.descriptor)
        except SymbolizeError:
            return None


def _walk(unwinder: "StackUnwinder", stack: StackCopy, max_depth: int) -> Walk:
    try:
        return unwinder.walk(stack, max_depth)
    except MemoryError:
        raise
    except Exception:  # a file that nobody thought of must cost one stack, not all that are left
        return Walk((), (), WalkEnd.UNSUPPORTED)


def _words(walk: Walk) -> list[int]:
    """Return the frames as the kernel's walk writes them: callers inside their calls."""
    exact = set(walk.exact)
    return [
        word_of(FrameWord(binary, address if index in exact else address - 1))
        for index, (binary, address) in enumerate(walk.frames)
    ]


def _read_stack(worker: Confined, deadline_s: float, max_depth: int, binaries: int) -> WalkedStack:
    """Return the next result. Raises: EndedError; ValueError when it is nonsense."""
    end, count = _RESULT.unpack(worker.read(_RESULT.size, deadline_s))
    if end not in _ENDS.values() or count > max_depth:
        raise ValueError(end)
    words = struct.unpack(f"<{count}Q", worker.read(8 * count, deadline_s))
    if any(frame_word(word).exe >= binaries for word in words):
        raise ValueError("a frame of no file")
    return WalkedStack(words, end)

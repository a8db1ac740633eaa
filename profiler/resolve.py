"""Capture to Profile: addresses become frames of files here, and get their names in `name.py`.

Here the order of a stack flips, from leaf first as captured to root first as drawn, and a return
address becomes an address inside the call.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

from pyprof.profiler.binaries import Binaries
from pyprof.profiler.capture import (
    END_32_BIT,
    END_BY_KERNEL,
    END_COMPLETE,
    END_COPY_CUT,
    END_GUESSED,
    END_NO_MAPPING,
    END_NO_PROGRESS,
    END_NO_ROW,
    END_NOT_READY,
    END_NOT_RESIDENT,
    END_UNSUPPORTED,
    STACK_COLLISION,
    STACK_MAP_FULL,
    STACK_NONE,
    STACK_UNREADABLE,
    Capture,
    Sample,
)
from pyprof.profiler.executables import VDSO, Executable
from pyprof.profiler.proc import FileMapping
from pyprof.profiler.process_table import Image
from pyprof.profiler.profile import Mapping, Profile, ProfileSample, Quality, Truncation
from pyprof.profiler.unwind_maps import frame_word
from pyprof.symbolize.frame import Frame, FrameKind
from pyprof.symbolize.text import printable

STACK_NOTES = {
    STACK_MAP_FULL: "[lost: stack map full]",
    STACK_UNREADABLE: "[user stack could not be read]",
    STACK_COLLISION: "[lost: stack hash collision]",
}
# A return address outside all executable memory: the callee does not keep frame pointers.
BROKEN_NOTE = "[truncated: no frame pointers]"
# Why the kernel's walk along unwind tables went no further.
TRUNCATIONS = {
    END_NO_ROW: "no unwind row",
    END_NOT_RESIDENT: "page not resident",
    END_UNSUPPORTED: "unwind rule not supported",
    END_NO_PROGRESS: "stack pointer does not rise",
    END_NO_MAPPING: "address in no mapping",
    END_NOT_READY: "unwind tables not ready",
    END_COPY_CUT: "stack larger than its copy",
}
GUESSED_NOTE = "[callers may be missing: no unwind row]"
BITS_NOTE = "[callers may be missing: 32-bit code]"
COUNTS_FULL_NOTE = "[lost: count map full]"
UNMAPPED_NAME = "[address in no mapping]"
UNSEEN_NAME = "[process ended before it was seen]"
OUTSIDE_NAME = "[process outside this pid namespace]"


class Unnamed(NamedTuple):
    """A profile whose frames are files and offsets, with what the names can be read from."""

    profile: Profile
    descriptors: tuple[int, ...]  # of each of the profile's mappings: the open file, or -1
    is_live: bool = True  # the files are those that were mapped; else they are today's files of the same path


def unnamed_profile(capture: Capture, binaries: Binaries) -> Unnamed:
    """Return the capture as a profile whose frames are named `[libc.so.6+0x1234]`.

    Samples are sorted, so the same capture gives the same profile.
    """
    frames = _Frames(binaries)
    samples = [
        ProfileSample(
            _stack(capture, sample, frames), sample.value, printable(sample.comm), sample.pid, sample.tid
        )
        for sample in sorted(capture.samples)
    ]
    quality = _with_stack_quality(capture, samples, frames)
    samples += _lost_counts(capture, frames)
    profile = Profile(
        unit="samples",
        samples=tuple(samples),
        frames=tuple(frames.frames),
        mappings=tuple(frames.mappings),
        provenance=capture.provenance,
        quality=quality,
    )
    return Unnamed(profile, tuple(frames.descriptors), is_live=True)


def offset_name(path: str, offset: int) -> str:
    """Return the name of a frame that has none: its module and offset."""
    return printable(f"[{PurePosixPath(path).name.strip('[]') or path}+{offset:#x}]")


def _stack(capture: Capture, sample: Sample, frames: "_Frames") -> tuple[int, ...]:
    image = capture.processes.find(sample.pid, sample.start_ns, sample.image_ns or capture.execs_since_ns)
    unseen = UNSEEN_NAME if sample.pid else OUTSIDE_NAME
    if sample.user_end in (END_BY_KERNEL, END_32_BIT):
        user = _half(capture, sample.user_stack, frames.of_image(image, unseen), frames)
        is_whole = user and frames.frames[user[0]].kind is not FrameKind.NOTE
        if sample.user_end == END_32_BIT and is_whole:
            user = (frames.note(BITS_NOTE), *user)
    else:
        user = _walked(capture, sample, frames.of_words(image, capture.executables, unseen), frames)
    return (*user, *_half(capture, sample.kernel_stack, frames.kernel, frames))


def _walked(capture: Capture, sample: Sample, index_of: dict[int, int], frames: "_Frames") -> tuple[int, ...]:
    """Return a user stack that was walked along unwind tables, root first."""
    words = capture.stacks.get(sample.user_stack)
    if words is None and not (sample.user_stack == STACK_UNREADABLE and sample.user_end in TRUNCATIONS):
        return (frames.note(STACK_NOTES.get(sample.user_stack, STACK_NOTES[STACK_MAP_FULL])),)
    stack = [index_of[word] for word in reversed(words or ())]
    if sample.user_end == END_COMPLETE:
        return tuple(stack)
    if sample.user_end == END_GUESSED:
        return (frames.note(GUESSED_NOTE), *stack)
    reason = TRUNCATIONS.get(sample.user_end, f"deeper than {capture.max_depth}")
    return (frames.note(f"[truncated: {reason}]"), *stack)


def _half(capture: Capture, stack_id: int, index_of: dict[int, int], frames: "_Frames") -> tuple[int, ...]:
    """Return the user or kernel half of a stack, root first."""
    if stack_id == STACK_NONE:
        return ()
    addresses = capture.stacks.get(stack_id)
    if addresses is None:
        return (frames.note(STACK_NOTES.get(stack_id, STACK_NOTES[STACK_MAP_FULL])),)
    stack = [index_of[addresses[0]], *[index_of[address - 1] for address in addresses[1:]]]
    if not frames.nowhere.isdisjoint(stack[1:]):
        broken = next(index for index in range(1, len(stack)) if stack[index] in frames.nowhere)
        stack[broken:] = [frames.note(BROKEN_NOTE)]
    elif len(addresses) >= capture.max_depth:
        stack.append(frames.note(f"[truncated: deeper than {capture.max_depth}]"))
    return tuple(reversed(stack))


def _with_stack_quality(capture: Capture, samples: list[ProfileSample], frames: "_Frames") -> Quality:
    """Return the capture's quality with how whole the user stacks are, as the notes at their roots tell."""
    user_stacks, truncated = 0, Counter[str]()
    for sample, drawn in zip(sorted(capture.samples), samples, strict=True):
        if sample.user_stack == STACK_NONE:
            continue
        user_stacks += sample.value
        root = frames.frames[drawn.stack[0]]
        if root.kind is FrameKind.NOTE:
            truncated[root.name.strip("[]").removeprefix("truncated: ")] += sample.value
    reasons = tuple(Truncation(reason, value) for reason, value in sorted(truncated.items()))
    return replace(capture.quality, user_stacks=user_stacks, truncated=reasons)


def _lost_counts(capture: Capture, frames: "_Frames") -> list[ProfileSample]:
    lost = sum(loss.value for loss in capture.quality.losses if loss.reason == "count map full")
    return [ProfileSample((frames.note(COUNTS_FULL_NOTE),), lost, "")] if lost else []


class _IndexOfAddress(dict[int, int]):
    """The frame of each address, made when it is first asked for."""

    def __init__(self, make: Callable[[int], int]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, address: int) -> int:
        index = self[address] = self._make(address)
        return index


class _Frames:
    """Interns frames and mappings, so that equal code of two processes is one frame."""

    def __init__(self, binaries: Binaries) -> None:
        self.frames: list[Frame] = []
        self.mappings: list[Mapping] = []
        self.descriptors: list[int] = []
        self.nowhere: set[int] = set()  # frames whose address is in no executable memory
        self.kernel: dict[int, int] = _IndexOfAddress(self._kernel_index)
        self._binaries = binaries
        self._frame_index: dict[Frame, int] = {}
        self._mapping_index: dict[tuple[Mapping, int], int] = {}
        self._images: dict[tuple[int, str], _IndexOfAddress] = {}
        self._words: dict[tuple[int, str], _IndexOfAddress] = {}

    def of_image(self, image: Image | None, unseen: str) -> dict[int, int]:
        """Return the frames of a program image by address; all are `unseen` where it is not known."""
        key = (id(image), unseen)
        if key not in self._images:
            self._images[key] = _IndexOfAddress(partial(self._user_index, image, unseen))
        return self._images[key]

    def of_words(self, image: Image | None, executables: Sequence[Executable], unseen: str) -> dict[int, int]:
        """Return the frames of frame words; addresses without a file are those of a program image."""
        key = (id(image), unseen)
        if key not in self._words:
            addresses = self.of_image(image, unseen)
            self._words[key] = _IndexOfAddress(partial(self._word_index, executables, addresses))
        return self._words[key]

    def note(self, text: str) -> int:
        return self._intern(Frame(text, FrameKind.NOTE))

    def _kernel_index(self, address: int) -> int:
        return self._intern(Frame("[kernel]", FrameKind.KERNEL, "[kernel]", address))

    def _word_index(self, executables: Sequence[Executable], addresses: dict[int, int], word: int) -> int:
        number, address = frame_word(word)
        if number < 0:
            return addresses[address]
        executable = executables[number]
        mapping = executable.mapping_at(address)
        frame_mapping = self._mapping(mapping, executable.descriptor)
        name = offset_name(mapping.path, address)
        return self._intern(Frame(name, FrameKind.USER, mapping.path, address, frame_mapping))

    def _user_index(self, image: Image | None, unseen: str, address: int) -> int:
        if image is None:
            return self._intern(Frame(unseen, FrameKind.USER, address=max(address, 0)))
        index = self._intern(self._user_frame(image, max(address, 0)))
        if self.frames[index].name == UNMAPPED_NAME:
            self.nowhere.add(index)
        return index

    def _user_frame(self, image: Image, address: int) -> Frame:
        file = image.find(address)
        if file is None:
            return Frame(UNMAPPED_NAME, FrameKind.USER, address=address)
        path = file.mapping.path
        if (not path.startswith("/") and path != VDSO) or path.startswith("//"):
            name = offset_name(path, address - file.mapping.start)
            return Frame(name, FrameKind.JIT, path, address)
        offset = address - file.mapping.start + file.mapping.file_offset
        return Frame(offset_name(path, offset), FrameKind.USER, path, offset, self._file_mapping(file))

    def _file_mapping(self, file: FileMapping) -> int:
        return self._mapping(file.mapping, self._binaries.descriptor(file))

    def _mapping(self, mapping: Mapping, descriptor: int) -> int:
        length = mapping.limit - mapping.start
        normalised = mapping._replace(start=mapping.file_offset, limit=mapping.file_offset + length)
        key = (normalised, descriptor)
        if key not in self._mapping_index:
            self._mapping_index[key] = len(self.mappings)
            self.mappings.append(normalised)
            self.descriptors.append(descriptor)
        return self._mapping_index[key]

    def _intern(self, frame: Frame) -> int:
        index = self._frame_index.get(frame)
        if index is None:
            index = self._frame_index[frame] = len(self.frames)
            self.frames.append(frame)
        return index

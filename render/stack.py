"""Stacks as they are drawn: the thread's process frame, then the frames, root first.

Every renderer that merges stacks starts here, so that folded text, flame graph and table agree on what
one frame is. Frames are drawn as one when their name and kind are equal; the module is kept beside them,
because a reader wants to know which `main` it is.
"""

from dataclasses import dataclass

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.symbolize.frame import Frame, FrameKind

DELIMITER = Frame("-", FrameKind.NOTE)  # stands between the user and the kernel part
NO_STACK = Frame("[no stack]", FrameKind.NOTE)  # a sample without frames and without a thread name

_Key = tuple[str, str, str]  # name, kind's value, module: the order of labels
_Thread = tuple[str, int, int]  # comm, pid, tid
_Labels = tuple[int, ...]  # a stack or a part of one, as indices of labels


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStyle:
    """What a drawn stack shows beyond the names of its frames."""

    delimited: bool = False  # a `-` frame between the last user frame and the first kernel frame
    annotated: bool = False  # text formats: `_[k]`, `_[i]`, `_[j]` after the name
    pids: bool = False  # process frame `comm-pid` where the process id is known
    tids: bool = False  # process frame `comm-pid/tid` where the thread id is known


PLAIN = StackStyle()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnStacks:
    """Distinct stacks of labels with their values."""

    labels: tuple[Frame, ...]  # distinct (name, kind, module), in that order; only these fields are set
    groups: tuple[int, ...]  # per label: the first label that is drawn as the same frame
    stacks: tuple[tuple[int, ...], ...]  # indices into labels, root first, process frame included
    values: tuple[int, ...]  # per stack, in the profile's unit, above 0


def drawn_stacks(profile: Profile, style: StackStyle) -> DrawnStacks:
    """Return the profile's stacks with their process frames, equal ones merged.

    Samples without a value are left out. The order of the stacks is that of the samples.
    """
    threads = {(sample.comm, sample.pid, sample.tid): sample for sample in profile.samples}
    processes = {thread: process_frame(sample, style) for thread, sample in threads.items()}
    keys = [_key(frame) for frame in profile.frames]
    labels = _labels({*keys, *(_key(frame) for frame in (*processes.values(), DELIMITER, NO_STACK) if frame)})
    rank = {_key(label): number for number, label in enumerate(labels)}
    frames = [rank[key] for key in keys]
    bodies = [tuple(map(frames.__getitem__, sample.stack)) for sample in profile.samples]
    if style.delimited:
        bodies = _delimited(bodies, labels, rank[_key(DELIMITER)])
    heads: dict[_Thread, _Labels] = {
        thread: (rank[_key(frame)],) if frame else () for thread, frame in processes.items()
    }
    merged = _merged(profile.samples, heads, bodies, (rank[_key(NO_STACK)],))
    return DrawnStacks(
        labels=labels, groups=_groups(labels), stacks=tuple(merged), values=tuple(merged.values())
    )


def process_frame(sample: ProfileSample, style: StackStyle) -> Frame | None:
    """Return the first frame of a sample's stack, None when its thread name is unknown."""
    if not sample.comm:
        return None
    name = sample.comm
    if (style.pids or style.tids) and sample.pid:
        name += f"-{sample.pid}"
        if style.tids and sample.tid:
            name += f"/{sample.tid}"
    return Frame(name, FrameKind.PROCESS)


def _key(frame: Frame) -> _Key:
    return frame.name, frame.kind.value, frame.module


def _labels(keys: set[_Key]) -> tuple[Frame, ...]:
    return tuple(Frame(name, FrameKind(kind), module) for name, kind, module in sorted(keys))


def _groups(labels: tuple[Frame, ...]) -> tuple[int, ...]:
    first: dict[tuple[str, str], int] = {}
    return tuple(
        first.setdefault((label.name, label.kind.value), number) for number, label in enumerate(labels)
    )


def _delimited(bodies: list[_Labels], labels: tuple[Frame, ...], delimiter: int) -> list[_Labels]:
    """Return the stacks with the delimiter above the frame below the first kernel frame, if there is one."""
    kernel = [label.kind is FrameKind.KERNEL for label in labels]
    result = []
    for body in bodies:
        first = next((level for level, label in enumerate(body) if kernel[label]), 0)
        wanted = first > 0 and labels[body[first - 1]].kind is not FrameKind.NOTE
        result.append((*body[:first], delimiter, *body[first:]) if wanted else body)
    return result


def _merged(
    samples: tuple[ProfileSample, ...],
    heads: dict[_Thread, _Labels],
    bodies: list[_Labels],
    no_stack: _Labels,
) -> dict[_Labels, int]:
    values: dict[_Labels, int] = {}
    for sample, body in zip(samples, bodies, strict=True):
        if sample.value > 0:
            stack = heads[sample.comm, sample.pid, sample.tid] + body or no_stack
            values[stack] = values.get(stack, 0) + sample.value
    return values

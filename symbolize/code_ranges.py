"""Which bytes of a file each FDE is for.

    FDE 1   0x1000 to 0x1040
    FDE 2   0x1020 to 0x1030     FDE 1 ends at 0x1020; from 0x1030 on nothing is known
    FDE 3   0x1020 to 0x1028     the later record of one start counts: FDE 2 is for nothing

Source: gcc libgcc/unwind-dw2-fde.c (a search for the last FDE that starts at or before an address).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyprof.symbolize.arrays import np
from pyprof.symbolize.call_frames import CallFrames
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.layout import PF_X, PT_LOAD, Layout, Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE_OFFSET_LIMIT = 1 << 32
_SEGMENT_LIMIT = 64  # executable ones; a file has one, rarely up to four


class CodeRanges(NamedTuple):
    """Half-open ranges of file offsets that do not overlap, in no order."""

    starts: NDArray[np.int64]
    limits: NDArray[np.int64]  # equal to the start for an FDE that no code belongs to


def code_segments(layout: Layout) -> list[Segment]:
    """Return the segments that hold code. Raises: SymbolizeError when there are too many or too far on."""
    segments = [s for s in layout.segments if s.kind == PT_LOAD and s.flags & PF_X and s.size_bytes]
    if len(segments) > _SEGMENT_LIMIT:
        raise SymbolizeError(f"more than {_SEGMENT_LIMIT} executable segments")
    if any(s.file_offset + s.size_bytes > FILE_OFFSET_LIMIT for s in segments):
        raise SymbolizeError("code beyond 4 GiB of the file")
    return segments


def code_ranges(frames: CallFrames, segments: list[Segment]) -> CodeRanges:
    """Return the range of each FDE, in the order of the FDEs."""
    starts = np.zeros(len(frames.starts), np.int64)
    limits = starts.copy()
    is_left = (frames.starts != 0) & (frames.sizes != 0)
    for segment in segments:
        distance = frames.starts - np.uint64(segment.virtual_offset)  # modulo 2^64: large for what is before
        size_bytes = np.uint64(segment.size_bytes)
        chosen = np.flatnonzero(is_left & (distance < size_bytes))
        start = distance[chosen]
        is_left[chosen] = False
        starts[chosen] = start.astype(np.int64) + segment.file_offset
        sizes = np.minimum(frames.sizes[chosen], size_bytes - start)
        limits[chosen] = starts[chosen] + sizes.astype(np.int64)
    _cut(starts, limits)
    return CodeRanges(starts, limits)


def _cut(starts: NDArray[np.int64], limits: NDArray[np.int64]) -> None:
    """Let each range end where the next one starts."""
    used = np.flatnonzero(limits > starts)
    order = used[np.argsort(starts[used], kind="stable")]
    limits[order[:-1]] = np.minimum(limits[order[:-1]], starts[order[1:]])

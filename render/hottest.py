"""The hottest stacks as lines for a terminal: where a capture's time went, at one look."""

from pyprof.profiler.profile import Profile
from pyprof.render.caption import percent
from pyprof.render.stack import PLAIN, drawn_stacks
from pyprof.symbolize.frame import FrameKind
from pyprof.symbolize.text import printable

DEFAULT_STACKS = 5


def hottest_text(profile: Profile, limit: int = DEFAULT_STACKS, width: int = 100) -> str:
    """Return the stacks with the largest values, largest first, a line each, cut to `width` characters.

    The leaf comes first, its callers behind it, the thread's name before the share:

         41.2%  demo  sift_down < sort_records < make_report < main
    """
    drawn = drawn_stacks(profile, PLAIN)
    ranked = sorted(zip(drawn.values, drawn.stacks, strict=True), key=lambda row: (-row[0], row[1]))
    lines = ["hottest stacks, leaf < caller:"] if ranked else []
    for value, stack in ranked[:limit]:
        frames = [drawn.labels[index] for index in stack]
        comm = [frame.name for frame in frames if frame.kind is FrameKind.PROCESS]
        names = [frame.name for frame in reversed(frames) if frame.kind is not FrameKind.PROCESS]
        words = f"{percent(value, profile.total):>6}  {' '.join(comm)}  {' < '.join(names)}"
        lines.append(printable(words, width))
    return "".join(f"{line}\n" for line in lines)

"""Frame: one line of a stack, as a reader of the graph sees it."""

from enum import Enum
from typing import NamedTuple

NO_MAPPING = -1


class FrameKind(Enum):
    """What a frame stands for; renderers tint and annotate by it."""

    PROCESS = "process"  # the first frame of a stack: the thread's comm
    USER = "user"
    KERNEL = "kernel"
    INLINED = "inlined"  # user code that the compiler inlined into its parent
    JIT = "jit"  # user code in memory that no file backs
    NOTE = "note"  # pyprof's own words: [lost: ...], [truncated: ...]


class Frame(NamedTuple):
    """A named place in a program.

    Two frames are drawn as one when `name` and `kind` are equal; `address` and `mapping` only tell
    where the frame came from, so that a saved profile can be resolved again.
    """

    name: str  # printable text: no control or bidirectional characters; may hold ';', '<' and '&'
    kind: FrameKind
    module: str = ""  # path of the binary, kernel module name, "" when there is none
    address: int = 0  # user: file offset; kernel and memory without a file: absolute; 0 when absent
    mapping: int = NO_MAPPING  # index into Profile.mappings
    line: int = 0  # source line, 0 when unknown
    file: str = ""  # source file, "" when unknown

"""FlameNode: the merged stacks of a profile as a flat table, parents before children.

Stacks are sorted first; then a node is a run of neighbouring stacks, its children are the runs within
that run, and a run too narrow to be seen is passed over without a look at what stands above it.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from pyprof.profiler.profile import Profile
from pyprof.render.stack import PLAIN, DrawnStacks, StackStyle, drawn_stacks
from pyprof.symbolize.frame import Frame, FrameKind

NO_PARENT = -1
ROOT = Frame("all", FrameKind.PROCESS)
SEVERAL_MODULES = "several modules"  # FlameNode.module where equal names of different binaries meet


class FlameNode(NamedTuple):
    """One frame of a flame graph. Values are in the profile's unit."""

    parent: int  # index of the node below, NO_PARENT for the root
    depth: int  # 0 for the root
    name: str
    kind: FrameKind
    module: str  # "" when there is none, SEVERAL_MODULES when merged frames disagree
    start: int  # left edge: the values of all that is drawn left of it
    total: int  # value of the stacks through this node
    self_value: int  # value of the stacks that end here


@dataclass(frozen=True, slots=True, kw_only=True)
class FlameGraph:
    """The nodes of a flame graph, each after its parent, siblings sorted by name."""

    nodes: tuple[FlameNode, ...]  # the first is the root "all", which is always there
    levels: int  # depth of the deepest node + 1
    pruned_branches: int  # nodes that were too narrow, not counting what stood above them
    pruned_value: int  # their value; it stays in the totals of the nodes below


def flame_graph(profile: Profile, style: StackStyle = PLAIN, min_share: float = 0.0) -> FlameGraph:
    """Return the profile's flame graph without the nodes that have less than `min_share` of the total.

    The children of a node lie left to right by name, then kind, from the node's left edge on; what is
    left over at the right is the node's own value. Time grows with the nodes kept, not with those pruned.
    """
    builder = _Builder(drawn_stacks(profile, style), min_share)
    builder.build()
    return FlameGraph(
        nodes=tuple(builder.nodes),
        levels=1 + max(node.depth for node in builder.nodes),
        pruned_branches=builder.pruned_branches,
        pruned_value=builder.pruned_value,
    )


class _Run(NamedTuple):
    """Neighbouring stacks that share their first `depth` frames: a node to be."""

    parent: int
    depth: int
    first: int  # stacks[first:limit]
    limit: int
    start: int


class _Builder:
    """The sorted stacks while their nodes are built, by a list of open runs instead of recursion."""

    def __init__(self, drawn: DrawnStacks, min_share: float) -> None:
        grouped = [tuple(map(drawn.groups.__getitem__, stack)) for stack in drawn.stacks]
        order = sorted(range(len(grouped)), key=grouped.__getitem__)
        self._labels = drawn.labels
        self._stacks = [grouped[number] for number in order]
        self._modules = [drawn.stacks[number] for number in order]  # the same frames, modules apart
        self._sums = [0, *accumulate(drawn.values[number] for number in order)]
        self._mixed = {group for number, group in enumerate(drawn.groups) if group != number}
        self._min_value = min_share * self._sums[-1]
        self.nodes: list[FlameNode] = []
        self.pruned_branches = 0
        self.pruned_value = 0

    def build(self) -> None:
        open_runs = [_Run(NO_PARENT, 0, 0, len(self._stacks), 0)]
        while open_runs:
            run = open_runs.pop()
            if run.limit - run.first == 1 and run.depth:
                self._add_spire(run)
                continue
            ended = self._ended(run)
            self.nodes.append(self._node(run, self._sums[ended] - self._sums[run.first]))
            open_runs.extend(reversed(self._children(run, ended)))

    def _add_spire(self, run: _Run) -> None:
        """Add the nodes of a run of one stack: a column of equal width up to the stack's end."""
        value = self._sums[run.limit] - self._sums[run.first]
        stack = self._modules[run.first]
        parent = run.parent
        for depth in range(run.depth, len(stack) + 1):
            name, kind, module, *_ = self._labels[stack[depth - 1]]
            self_value = value if depth == len(stack) else 0
            self.nodes.append(FlameNode(parent, depth, name, kind, module, run.start, value, self_value))
            parent = len(self.nodes) - 1

    def _ended(self, run: _Run) -> int:
        """Return the limit of the stacks that end at this depth; sorted, they come first."""
        ended = run.first
        while ended < run.limit and len(self._stacks[ended]) == run.depth:
            ended += 1
        return ended

    def _node(self, run: _Run, self_value: int) -> FlameNode:
        total = self._sums[run.limit] - self._sums[run.first]
        if run.depth == 0:
            return FlameNode(NO_PARENT, 0, ROOT.name, ROOT.kind, "", 0, total, self_value)
        name, kind, module, *_ = self._labels[self._stacks[run.first][run.depth - 1]]
        module = self._module(run) or module
        return FlameNode(run.parent, run.depth, name, kind, module, run.start, total, self_value)

    def _module(self, run: _Run) -> str:
        """Return the module of a node whose label has several, "" for all others."""
        level = run.depth - 1
        if self._stacks[run.first][level] not in self._mixed:
            return ""
        found = {self._labels[stack[level]].module for stack in self._modules[run.first : run.limit]}
        return found.pop() if len(found) == 1 else SEVERAL_MODULES

    def _children(self, run: _Run, first: int) -> list[_Run]:
        """Return the child runs that are wide enough and count the others."""
        parent = len(self.nodes) - 1
        start = run.start
        children = []
        while first < run.limit:
            limit = self._limit(run.depth, first, run.limit)
            value = self._sums[limit] - self._sums[first]
            if value >= self._min_value:
                children.append(_Run(parent, run.depth + 1, first, limit, start))
            else:
                self.pruned_branches += 1
                self.pruned_value += value
            start += value
            first = limit
        return children

    def _limit(self, level: int, first: int, limit: int) -> int:
        """Return the limit of the stacks that share the first one's frame at this level."""
        stacks = self._stacks
        label = stacks[first][level]
        if stacks[limit - 1][level] == label:
            return limit
        if stacks[first + 1][level] != label:
            return first + 1
        return bisect_right(stacks, label, first + 1, limit, key=lambda stack: stack[level])

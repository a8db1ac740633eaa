"""The node table: merging, geometry, pruning."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler.profile import Profile, ProfileSample
from pyprof.render.flame import NO_PARENT, SEVERAL_MODULES, FlameGraph, flame_graph
from pyprof.symbolize.frame import Frame, FrameKind

Build = Callable[..., Profile]

_STACKS = st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=6), st.integers(1, 50)), max_size=20)


def _profile(stacks: list[tuple[list[int], int]]) -> Profile:
    samples = tuple(ProfileSample(tuple(stack), value, "comm") for stack, value in stacks)
    frames = tuple(Frame(f"f{number}", FrameKind.USER) for number in range(4))
    return Profile(unit="samples", samples=samples, frames=frames)


def _children(graph: FlameGraph, parent: int) -> list[int]:
    return [number for number, node in enumerate(graph.nodes) if node.parent == parent]


@given(_STACKS)
def test_children_lie_within_their_parent_side_by_side(stacks: list[tuple[list[int], int]]) -> None:
    graph = flame_graph(_profile(stacks))
    for number, node in enumerate(graph.nodes):
        children = [graph.nodes[child] for child in _children(graph, number)]
        assert node.total == node.self_value + sum(child.total for child in children)
        assert [child.name for child in children] == sorted({child.name for child in children})
        edges = [node.start, *(child.start + child.total for child in children)]
        assert [child.start for child in children] == edges[:-1]
        assert edges[-1] + node.self_value == node.start + node.total
        assert all(child.depth == node.depth + 1 for child in children)
        assert node.parent < number


@given(_STACKS)
def test_the_root_is_the_total_and_selves_sum_to_it(stacks: list[tuple[list[int], int]]) -> None:
    profile = _profile(stacks)
    graph = flame_graph(profile)
    assert graph.nodes[0].total == profile.total == sum(node.self_value for node in graph.nodes)
    assert graph.nodes[0].parent == NO_PARENT
    assert (graph.pruned_branches, graph.pruned_value) == (0, 0)


@given(_STACKS, st.floats(0, 1))
def test_pruning_removes_the_narrow_and_nothing_else(
    stacks: list[tuple[list[int], int]], min_share: float
) -> None:
    profile = _profile(stacks)
    whole, pruned = flame_graph(profile), flame_graph(profile, min_share=min_share)
    wide = [node for node in whole.nodes if node.total >= min_share * profile.total]
    assert [node[1:] for node in pruned.nodes] == [node[1:] for node in wide]
    shown = sum(node.self_value for node in pruned.nodes)
    assert shown + pruned.pruned_value == profile.total
    assert (pruned.pruned_branches > 0) == (len(wide) < len(whole.nodes))


def test_frames_merge_by_name_and_kind(build: Build) -> None:
    graph = flame_graph(build("a;read;f 1", "a;k:read;f 2", "a;read;g 4"))
    assert [(node.name, node.kind, node.total) for node in graph.nodes if node.depth == 2] == [
        ("read", FrameKind.KERNEL, 2),
        ("read", FrameKind.USER, 5),
    ]


def test_a_node_of_one_module_shows_it(build: Build) -> None:
    graph = flame_graph(
        build("a;main@/bin/a;f 1", "a;main@/bin/a;g 1", "b;main@/bin/b;f 1", "b;main@/bin/b;g 1")
    )
    assert [node.module for node in graph.nodes if node.name == "main"] == ["/bin/a", "/bin/b"]


def test_a_node_of_several_modules_says_so(build: Build) -> None:
    graph = flame_graph(
        build("a;main@/bin/a;x 1", "a;main@/bin/a;z 1", "a;main@/bin/b;y 1", "a;main@/bin/b;x 1")
    )
    assert [(node.module, node.total) for node in graph.nodes if node.name == "main"] == [
        (SEVERAL_MODULES, 4)
    ]
    assert [node.total for node in graph.nodes if node.name == "x"] == [2]


def test_stacks_of_thousands_of_levels_are_drawn() -> None:
    depth = 5000
    profile = _profile([([0] * depth, 1), ([0] * (depth - 1) + [1], 2)])
    graph = flame_graph(profile)
    assert graph.levels == depth + 2
    assert all(later.depth - earlier.depth <= 1 for earlier, later in pairwise(graph.nodes))


def test_an_empty_profile_has_only_the_root(build: Build) -> None:
    graph = flame_graph(build())
    assert [(node.name, node.total) for node in graph.nodes] == [("all", 0)]
    assert graph.levels == 1


def test_the_order_of_samples_does_not_matter(build: Build) -> None:
    lines = ["a;f;g 1", "a;f 2", "b;f 3", "a;g 4"]
    assert flame_graph(build(*lines)) == flame_graph(build(*reversed(lines)))

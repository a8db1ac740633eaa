"""The hottest stacks: the largest first, the leaf first, cut to the terminal."""

import re

from pyprof.render.folded import read_folded
from pyprof.render.hottest import hottest_text

PROFILE = read_folded(b"web;main;serve;parse 70\nweb;main;serve 20\njob;main;sort 10\n")


def test_largest_comes_first_with_its_leaf_before_its_callers() -> None:
    assert hottest_text(PROFILE).splitlines() == [
        "hottest stacks, leaf < caller:",
        " 70.0%  web  parse < serve < main",
        " 20.0%  web  serve < main",
        " 10.0%  job  sort < main",
    ]


def test_only_so_many_are_told() -> None:
    assert len(hottest_text(PROFILE, limit=1).splitlines()) == 2


def test_long_stack_is_cut_to_the_width() -> None:
    deep = read_folded(b"deep;" + b";".join(b"function%d" % level for level in range(200)) + b" 1\n")
    _, line = hottest_text(deep, width=60).splitlines()
    assert len(line) == 60
    assert re.match(r"100.0%  deep  function199 < function198", line)


def test_no_samples_are_no_lines() -> None:
    assert hottest_text(read_folded(b"")) == ""

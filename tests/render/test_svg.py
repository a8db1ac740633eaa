"""The flame graph as SVG: well-formed, legible without scripts, true to the values."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyprof.profiler.profile import Loss, Profile, ProfileSample, Provenance, Quality
from pyprof.render.errors import RenderError
from pyprof.render.escape import printable
from pyprof.render.stack import StackStyle
from pyprof.render.svg import FRAME_PX, SvgOptions, flame_svg
from pyprof.symbolize.frame import Frame, FrameKind

Build = Callable[..., Profile]

GOLDEN = Path(__file__).parent / "golden" / "web_server.svg"
ASSETS = Path(flame_svg.__code__.co_filename).parent / "assets"
_NS = {"s": "http://www.w3.org/2000/svg"}
_ANY = st.text(st.characters(exclude_categories=()), max_size=20)


def _parsed(svg: bytes) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own text


def _boxes(root: ET.Element) -> list[tuple[str, float, float, float]]:
    """Return (tooltip, x, y, width) of each frame."""
    boxes = []
    for group in root.findall(".//s:g[@class='frames']/s:g", _NS):
        rect = group.find("s:rect", _NS)
        assert rect is not None
        x, y, width = (float(rect.get(key, "")) for key in ("x", "y", "width"))
        boxes.append((group.findtext("s:title", "", _NS), x, y, width))
    return boxes


def _caption(root: ET.Element) -> str:
    return "\n".join(text.text or "" for text in root.findall("s:text", _NS))


def test_the_golden_picture_is_unchanged(web_server: Profile) -> None:
    svg = flame_svg(web_server).decode()
    if os.environ.get("PYPROF_REWRITE_GOLDENS") == "1":
        GOLDEN.write_text(svg, encoding="utf-8")
    assert svg == GOLDEN.read_text(encoding="utf-8")


def test_equal_profiles_give_equal_bytes(web_server: Profile) -> None:
    shuffled = replace(web_server, samples=web_server.samples[::-1])
    assert flame_svg(shuffled) == flame_svg(web_server)


def test_widths_are_the_values(web_server: Profile) -> None:
    boxes = {title: width for title, _, _, width in _boxes(_parsed(flame_svg(web_server)))}
    assert boxes["all (100 samples, 100.0%)"] == 1180
    assert boxes["main [nginx] (70 samples, 70.0%)"] == 826
    assert boxes["vfs_read (40 samples, 40.0%)"] == 472


@pytest.mark.parametrize("inverted", [False, True])
def test_boxes_lie_within_their_parents(web_server: Profile, inverted: bool) -> None:
    boxes = _boxes(_parsed(flame_svg(web_server, SvgOptions(inverted=inverted))))
    step = FRAME_PX if inverted else -FRAME_PX
    root_y = boxes[0][2]
    for _, x, y, width in boxes[1:]:
        below = [box for box in boxes if box[2] == y - step and box[1] - 0.02 <= x]
        assert any(x + width <= box[1] + box[3] + 0.02 for box in below)
        assert (y > root_y) == inverted


def test_the_caption_tells_total_provenance_quality_and_losses(web_server: Profile) -> None:
    root = _parsed(flame_svg(web_server, SvgOptions(title="Slow checkout", subtitle="after the deployment")))
    caption = _caption(root)
    assert caption.startswith("Slow checkout\n100 samples · after the deployment\ncpu · all processes · ")
    assert "host web-1 · Linux 6.18.0 · started 2023-11-14 22:13:20 UTC" in caption
    assert "102 of 120 expected samples taken (85.0%) · 6 idle" in caption
    assert "nginx exited with status 3." in caption
    losses = [text.text for text in root.findall("s:text[@class='loss']", _NS)]
    assert losses == [
        "18 of the expected (15.0%) never taken · 10 lost: stack map full (kept without their stacks)"
        " · 2 lost: user stack could not be read"
    ]


def test_a_complete_profile_says_so(build: Build) -> None:
    caption = _caption(_parsed(flame_svg(build("a;f 1", quality=Quality(taken=1, counted=1)))))
    assert "1 sample taken · no samples lost" in caption


def test_the_legend_shows_the_kinds_present(build: Build, web_server: Profile) -> None:
    assert _caption(_parsed(flame_svg(web_server))).endswith("process\nuser\ninlined\nJIT\nkernel\nnote")
    assert _caption(_parsed(flame_svg(build("a;f 1")))).endswith("process\nuser")


def test_labels_are_lettered_where_they_fit(web_server: Profile) -> None:
    texts = [text.text for text in _parsed(flame_svg(web_server)).findall(".//s:g/s:g/s:text", _NS)]
    assert "do_syscall_64" in texts
    assert "std::map<int, long>::find(int const&)" in texts


def test_the_metadata_is_json(web_server: Profile) -> None:
    data = json.loads(_parsed(flame_svg(web_server)).findtext("s:metadata", "", _NS))
    assert data["provenance"]["host"] == "web-1"
    assert data["quality"]["taken"] == 108
    assert data["pruned"] == {"branches": 0, "value": 0}


def test_narrow_frames_are_counted_in_the_caption(build: Build) -> None:
    profile = build("a;wide 10000", "a;narrow;leaf 1", "a;thin 1")
    caption = _caption(_parsed(flame_svg(profile)))
    assert "not drawn: 2 branches narrower than 0.25 px · together 0.02% of the width" in caption


def test_an_empty_profile_is_a_small_legible_picture(build: Build) -> None:
    root = _parsed(flame_svg(build(quality=Quality(expected=200, taken=400, idle=200))))
    assert "no samples" in _caption(root).splitlines()[-1]
    assert "200 of 200 expected samples taken (100.0%) · 200 idle · no samples lost" in _caption(root)
    assert int(root.get("height", "")) < 200


def test_hostile_names_give_a_well_formed_document(build: Build, hostile_names: tuple[str, ...]) -> None:
    for name in hostile_names:
        frames = tuple(Frame(name, kind, name) for kind in FrameKind)
        svg = flame_svg(
            Profile(
                unit=name,
                samples=(ProfileSample((0, 1, 2, 3, 4, 5), 3, name),),
                frames=frames,
                provenance=Provenance(mode=name, host=name, targets=name, notes=(name,)),
                quality=Quality(taken=3, losses=(Loss(name, 1, False),)),
            ),
            SvgOptions(title=name, subtitle=name, count_name=name),
            StackStyle(delimited=True, pids=True),
        )
        root = _parsed(svg)
        assert len(root.findall(".//s:script", _NS)) == 1
        assert svg.count(b"<script") == svg.count(b"</script") == 1
        assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)


@given(_ANY, _ANY, _ANY)
def test_any_text_gives_a_well_formed_document(name: str, comm: str, title: str) -> None:
    samples = (ProfileSample((0,), 1, comm),)
    profile = Profile(unit="samples", samples=samples, frames=(Frame(name, FrameKind.USER, title),))
    root = _parsed(flame_svg(profile, SvgOptions(title=title, subtitle=comm)))
    group = root.findall(".//s:g[@class='frames']/s:g", _NS)[-1]
    length = int(group.get("data-f", "").split()[0])
    tooltip = group.findtext("s:title", "", _NS).encode("utf-16-le")
    assert tooltip[: 2 * length].decode("utf-16-le") == printable(name)


def test_nothing_is_fetched_and_no_handler_is_inline(web_server: Profile) -> None:
    svg = flame_svg(web_server).decode()
    addresses = set(re.findall(r"https?://[^\"' ]+", svg))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not re.search(r"\son[a-z]+=|href|innerHTML|url\(|@import|\beval\b", svg)


@pytest.mark.parametrize("name", ["flamegraph.js", "flamegraph.css"])
def test_assets_cannot_end_their_section(name: str) -> None:
    text = (ASSETS / name).read_text(encoding="utf-8")
    assert not re.search(r"]]>|</script|<!--", text)


def test_identifiers_and_styles_differ_between_pictures(build: Build) -> None:
    one, two = (flame_svg(build(line)).decode() for line in ("a;f 1", "a;g 1"))
    identifiers = [re.findall(r'id="(pyprof-[0-9a-f]{12})"', svg) for svg in (one, two)]
    assert all(len(found) == 1 for found in identifiers)
    assert identifiers[0] != identifiers[1]
    style = _parsed(two.encode()).findtext("s:style", "", _NS)
    rules = re.findall(r"^\s*([^{}/@\n][^{}\n]*) \{ ", style, re.MULTILINE)
    assert rules
    assert all(part.strip().startswith(f"#{identifiers[1][0]}") for rule in rules for part in rule.split(","))


def test_thousands_of_levels_are_drawn() -> None:
    samples = (ProfileSample((0,) * 3000, 1, "deep"),)
    profile = Profile(unit="samples", samples=samples, frames=(Frame("recurse", FrameKind.USER),))
    assert len(_boxes(_parsed(flame_svg(profile)))) == 3002


@pytest.mark.parametrize(
    "options",
    [
        SvgOptions(width=10),
        SvgOptions(width=10**6),
        SvgOptions(min_width_px=-1),
        SvgOptions(min_width_px=10**4),
    ],
)
def test_a_size_that_cannot_be_drawn_is_refused(web_server: Profile, options: SvgOptions) -> None:
    with pytest.raises(RenderError, match="choose from"):
        flame_svg(web_server, options)


@pytest.mark.parametrize("width", [300, 700, 5000])
def test_the_caption_fits_the_width(web_server: Profile, width: int) -> None:
    root = _parsed(flame_svg(web_server, SvgOptions(width=width, title="t" * 900)))
    assert root.get("width") == str(width)
    assert max(map(len, _caption(root).splitlines())) * 7.2 <= width

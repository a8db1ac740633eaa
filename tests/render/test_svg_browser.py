"""The flame graph in a browser: zoom, search, keys, state in the address, several on one page."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pyprof.profiler.profile import Profile
from pyprof.render.svg import SvgOptions, flame_svg

Build = Callable[..., Profile]
Results = dict[str, object]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: the picture's script is not run")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,900",
)
_TIMEOUT_S = 60

# What the scripts of the tests share: `note` keeps a result, which is read out of the page's text.
_PRELUDE = """
const results = {};
const note = (name, value) => { results[name] = value; };
const svgs = [...document.querySelectorAll("svg.pyprof")];
const named = (svg, name) => [...svg.querySelectorAll("g[data-f]")].find(
  (g) => g.querySelector("title").textContent.startsWith(name + " "));
const box = (g) => ["x", "width"].map((key) => Number(g.querySelector("rect").getAttribute(key)));
const lettered = (g) => g.querySelector("text") ? g.querySelector("text").textContent : "";
const classes = (g) => g.getAttribute("class") || "";
const click = (element) => element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
const point = (element) => element.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
const key = (element, name, more) => {
  const event = new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true, ...more });
  element.dispatchEvent(event);
  return event.defaultPrevented;
};
const details = (svg) => [...svg.querySelectorAll(".details text")].map((t) => t.textContent).join("");
const input = (svg) => svg.querySelector("input");
const output = (svg) => svg.querySelector("output").textContent;
const reset = (svg) => svg.querySelector("button");
const caseButton = (svg) => svg.querySelectorAll("button")[1];
const find = (svg, text) => {
  input(svg).value = text;
  input(svg).dispatchEvent(new Event("input", { bubbles: true }));
};
const matched = (svg) => [...svg.querySelectorAll(".matched")].map(
  (g) => g.querySelector("title").textContent.split(" (")[0]);
window.addEventListener("error", (event) => note("error", event.message));
"""
_EPILOGUE = """
const place = document.createElementNS("http://www.w3.org/2000/svg", "desc");
place.textContent = "RESULTS" + JSON.stringify(results) + "END";
svgs[0].appendChild(place);
"""


@pytest.fixture
def page(tmp_path: Path) -> Callable[[str, str, str], Results]:
    """Return a function that loads a text as a file with a fragment and returns what its script noted."""

    def load(name: str, text: str, fragment: str = "") -> Results:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return _results(tmp_path, f"{path.as_uri()}{fragment}")

    return load


def _results(folder: Path, address: str) -> Results:
    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'browser'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
    found = re.search(r"RESULTS(\{.*\})END", done.stdout.decode(), re.DOTALL)
    assert found, done.stdout.decode()[-2000:] + done.stderr.decode()[-2000:]
    results: Results = json.loads(html.unescape(found[1]))
    assert "error" not in results, results
    return results


def _alone(svg: bytes, script: str) -> str:
    """Return the picture as a document of its own with a test script at its end."""
    text = svg.decode().removesuffix("</svg>\n")
    return f"{text}<script><![CDATA[{_PRELUDE}{script}{_EPILOGUE}]]></script></svg>"


def _in_html(svgs: list[bytes], script: str) -> str:
    pictures = "\n".join(svg.decode().partition("?>\n")[2] for svg in svgs)
    return f"<!DOCTYPE html><meta charset=utf-8>{pictures}<script>{_PRELUDE}{script}{_EPILOGUE}</script>"


Page = Callable[..., Results]


@pytest.fixture
def shop(build: Build) -> Profile:
    """Return a profile with a function of 60 %, one of 30 %, and a deep narrow one."""
    return build(
        "shop;main;pay;k:read 40", "shop;main;pay;k:write 20", "shop;main;ship@/lib/s.so 30", "cron;tick 10"
    )


def test_a_click_zooms_and_reset_zooms_out(page: Page, shop: Profile) -> None:
    results = page(
        "zoom.svg",
        _alone(
            flame_svg(shop),
            """
            const svg = svgs[0];
            note("reset hidden", reset(svg).hidden);
            click(named(svg, "pay").querySelector("rect"));
            note("pay", box(named(svg, "pay")));
            note("read", box(named(svg, "read")));
            note("write", box(named(svg, "write")));
            note("main", [box(named(svg, "main")), classes(named(svg, "main"))]);
            note("ship", classes(named(svg, "ship")));
            note("tick", classes(named(svg, "tick")));
            note("address", location.hash.startsWith("#zoom="));
            note("reset shown", !reset(svg).hidden);
            click(reset(svg));
            note("pay again", box(named(svg, "pay")));
            note("address again", location.hash);
            note("lettered", lettered(named(svg, "pay")));
            """,
        ),
    )
    assert results["reset hidden"] is True
    assert results["pay"] == [0, 1180]
    assert results["read"] == [0, 786.67]
    assert results["write"] == [786.67, 393.33]
    assert results["main"] == [[0, 1180], "ancestor"]
    assert results["ship"] == results["tick"] == "hidden"
    assert results["address"] is results["reset shown"] is True
    assert results["pay again"] == [118, 708]
    assert results["address again"] == ""
    assert results["lettered"] == "pay"


def test_details_tell_name_module_and_shares(page: Page, shop: Profile) -> None:
    results = page(
        "details.svg",
        _alone(
            flame_svg(shop),
            """
            const svg = svgs[0];
            note("hint", details(svg));
            point(named(svg, "ship").querySelector("rect"));
            note("ship", details(svg));
            click(named(svg, "main").querySelector("rect"));
            point(named(svg, "read").querySelector("rect"));
            note("read", details(svg));
            """,
        ),
    )
    assert "click to zoom" in str(results["hint"])
    assert results["ship"] == "ship [s.so] (30 samples, 30.0% of all)"
    assert results["read"] == "read (40 samples, 40.0% of all, 44.4% of zoomed)"


def test_search_matches_names_only_and_counts_stacks_once(page: Page, build: Build) -> None:
    profile = build("a;read;x;read 50", "a;Read 20", "a;(samples) 30")
    results = page(
        "search.svg",
        _alone(
            flame_svg(profile),
            """
            const svg = svgs[0];
            const look = (text) => { find(svg, text); note(text, [matched(svg), output(svg)]); };
            look("read$");
            look("samples");
            look("^all$");
            look("%");
            note("address", location.hash);
            click(caseButton(svg));
            look("^read$");
            note("address with case", location.hash);
            look("(");
            note("invalid", input(svg).getAttribute("aria-invalid"));
            look("^x$");
            key(input(svg), "Escape");
            note("cleared", [matched(svg), output(svg), input(svg).value, location.hash]);
            """,
        ),
    )
    assert results["read$"] == [["Read", "read", "read"], "matched 70.0%"]
    assert results["samples"] == [["(samples)"], "matched 30.0%"]
    assert results["^all$"] == results["%"] == [[], "matched 0%"]
    assert results["address"] == "#find=%25"
    assert results["^read$"] == [["read", "read"], "matched 50.0%"]
    assert results["address with case"] == "#find=%5Eread%24&case=1"
    assert results["("] == [[], "no regular expression"]
    assert results["invalid"] == "true"
    assert results["^x$"] == [["x"], "matched 50.0%"]
    assert results["cleared"] == [[], "", "", ""]


def test_search_tells_the_share_of_the_zoomed_frame(page: Page, shop: Profile) -> None:
    results = page(
        "both.svg",
        _alone(
            flame_svg(shop),
            """
            const svg = svgs[0];
            find(svg, "^read$");
            click(named(svg, "pay").querySelector("rect"));
            note("output", output(svg));
            key(svg, "Escape");
            note("after one", [output(svg), box(named(svg, "pay"))]);
            key(svg, "Escape");
            note("after two", box(named(svg, "pay")));
            """,
        ),
    )
    assert results["output"] == "matched 40.0%, 66.7% of zoomed"
    assert results["after one"] == ["", [0, 1180]]
    assert results["after two"] == [118, 708]


def test_the_picture_is_walked_with_keys(page: Page, shop: Profile) -> None:
    results = page(
        "keys.svg",
        _alone(
            flame_svg(shop),
            """
            const svg = svgs[0];
            const at = () => document.activeElement.querySelector("title").textContent.split(" ")[0];
            named(svg, "all").focus();
            const walk = [];
            for (const name of ["Up", "Up", "Up", "Right", "Left", "Down"]) {
              key(document.activeElement, "Arrow" + name);
              walk.push(at());
            }
            note("walk", walk);
            key(document.activeElement, "Home");
            ["ArrowUp", "ArrowUp", "ArrowUp"].forEach((name) => key(document.activeElement, name));
            note("details", details(svg));
            key(document.activeElement, "Enter");
            note("zoomed", box(named(svg, "pay")));
            note("tab stops", svg.querySelectorAll('g[tabindex="0"]').length);
            note("slash", [key(svg, "/"), document.activeElement === input(svg)]);
            input(svg).blur();
            note("ctrl f", [key(svg, "f", { ctrlKey: true }), document.activeElement === input(svg)]);
            note("ctrl f twice", key(input(svg), "f", { ctrlKey: true }));
            note("slash in the box", key(input(svg), "/"));
            """,
        ),
    )
    assert results["walk"] == ["shop", "main", "pay", "ship", "pay", "main"]
    assert results["details"] == "pay (60 samples, 60.0% of all)"
    assert results["zoomed"] == [0, 1180]
    assert results["tab stops"] == 1
    assert results["slash"] == results["ctrl f"] == [True, True]
    assert results["ctrl f twice"] is results["slash in the box"] is False


@pytest.mark.parametrize("options", [SvgOptions(), SvgOptions(width=2000, title="other", inverted=True)])
def test_the_address_brings_zoom_and_search_back_in_any_size(
    page: Page, shop: Profile, options: SvgOptions
) -> None:
    first = page(
        "save.svg",
        _alone(
            flame_svg(shop),
            """
            click(named(svgs[0], "pay").querySelector("rect"));
            find(svgs[0], "^WRITE$");
            note("address", location.hash);
            """,
        ),
    )
    results = page(
        "load.svg",
        _alone(
            flame_svg(shop, options),
            """
            note("pay", box(named(svgs[0], "pay")));
            note("matched", matched(svgs[0]));
            location.hash = "#";
            window.dispatchEvent(new HashChangeEvent("hashchange"));
            note("pay without", box(named(svgs[0], "pay")));
            """,
        ),
        str(first["address"]),
    )
    inner_px = options.width - 20
    assert results["pay"] == [0, inner_px]
    assert results["matched"] == ["write"]
    assert results["pay without"] == [inner_px / 10, inner_px * 0.6]


def test_several_pictures_on_one_page_do_not_meddle(page: Page, shop: Profile, build: Build) -> None:
    results = page(
        "page.html",
        _in_html(
            [flame_svg(shop), flame_svg(build("shop;main;pay 1", "shop;main;ship 3"))],
            """
            const [one, two] = svgs;
            click(named(two, "pay").querySelector("rect"));
            find(one, "^ship$");
            note("zoomed", [box(named(one, "pay")), box(named(two, "pay"))]);
            note("matched", [matched(one), matched(two)]);
            note("controls", document.querySelectorAll("input").length);
            note("ids", new Set(svgs.map((svg) => svg.id)).size);
            note("keys", [...new URLSearchParams(location.hash.slice(1)).keys()].length);
            const outside = document.body.appendChild(document.createElement("p"));
            note("slash outside", key(outside, "/"));
            note("slash inside", [key(named(two, "pay"), "/"), document.activeElement === input(two)]);
            """,
        ),
    )
    assert results["zoomed"] == [[118, 708], [0, 1180]]
    assert results["matched"] == [["ship [s.so]"], []]
    assert results["controls"] == results["ids"] == results["keys"] == 2
    assert results["slash outside"] is False
    assert results["slash inside"] == [True, True]


@pytest.mark.parametrize("name", ["hostile.svg", "hostile.html"])
def test_hostile_names_are_text(page: Page, build: Build, hostile_names: tuple[str, ...], name: str) -> None:
    names = [text for text in hostile_names if ";" not in text]
    svg = flame_svg(build(*(f"a;{text} 1" for text in names)), SvgOptions(title=names[0]))
    script = """
        const svg = svgs[0];
        note("names", [...svg.querySelectorAll("g[data-f]")].map(
          (g) => g.querySelector("title").textContent.slice(0, Number(g.dataset.f.split(" ")[0]))));
        note("scripts", svg.querySelectorAll("script").length);
        point(named(svg, names[0]).querySelector("rect"));
        click(named(svg, names[0]).querySelector("rect"));
        note("details", details(svg));
        note("scripts after", svg.querySelectorAll("script").length);
    """.replace("names[0]", json.dumps(names[0]).replace("</", "<\\/"))
    text = _alone(svg, script) if name.endswith("svg") else _in_html([svg], script)
    results = page(name, text)
    assert names[0] in list(results["names"])  # type: ignore[call-overload]
    assert str(results["details"]).startswith(names[0])
    assert results["scripts"] == results["scripts after"]


def test_labels_shorten_the_same_way_in_script_and_picture(page: Page, build: Build) -> None:
    name = "std::vector<int, std::allocator<int> >::push_back(int const&)"
    profile = build(
        f"a;{name} 1", "a;漢字漢字漢字漢字漢字漢字 1", "a;operator::operator()(int) const 1", "a;z 9"
    )
    results = page(
        "labels.svg",
        _alone(
            flame_svg(profile, SvgOptions(width=1300)),
            """
            const labels = () => [...svgs[0].querySelectorAll("g[data-f]")].map(lettered);
            const before = labels();
            click(named(svgs[0], "z").querySelector("rect"));
            click(reset(svgs[0]));
            note("before", before);
            note("after", labels());
            """,
        ),
    )
    assert results["before"] == results["after"]
    assert "…push_back" in list(results["before"])  # type: ignore[call-overload]

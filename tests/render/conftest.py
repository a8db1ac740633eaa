"""Profiles for the tests of the renderers, written as folded stacks with kinds."""

from collections.abc import Callable

import pytest

from pyprof.profiler.profile import Loss, Profile, ProfileSample, Provenance, Quality
from pyprof.symbolize.frame import Frame, FrameKind

_PREFIXES = {"k:": FrameKind.KERNEL, "i:": FrameKind.INLINED, "j:": FrameKind.JIT, "n:": FrameKind.NOTE}

Build = Callable[..., Profile]


def _frame(text: str) -> Frame:
    kind = _PREFIXES.get(text[:2], FrameKind.USER)
    name, _, module = (text[2:] if text[:2] in _PREFIXES else text).partition("@")
    return Frame(name, kind, module)


def _profile(*lines: str, quality: Quality | None = None, provenance: Provenance | None = None) -> Profile:
    frames: dict[Frame, int] = {}
    samples = []
    for line in lines:
        text, value = line.rsplit(" ", 1)
        comm, *names = text.split(";")
        stack = tuple(frames.setdefault(_frame(name), len(frames)) for name in names)
        samples.append(ProfileSample(stack=stack, value=int(value), comm=comm, pid=70, tid=71))
    return Profile(
        unit="samples",
        samples=tuple(samples),
        frames=tuple(frames),
        quality=quality or Quality(),
        provenance=provenance or Provenance(),
    )


@pytest.fixture(scope="session")
def build() -> Build:
    """Return the builder: "comm;root;k:kernel leaf@module VALUE" lines to a profile.

    Prefixes k:, i:, j: and n: give the kind, without one a frame is user code.
    """
    return _profile


@pytest.fixture(scope="session")
def web_server(build: Build) -> Profile:
    """Return a small profile with every kind of frame, with losses and with provenance."""
    return build(
        "nginx;main@/usr/sbin/nginx;ngx_worker@/usr/sbin/nginx;i:ngx_unlikely;k:do_syscall_64;k:vfs_read 40",
        "nginx;main@/usr/sbin/nginx;ngx_worker@/usr/sbin/nginx;std::map<int, long>::find(int const&) 25",
        "nginx;main@/usr/sbin/nginx 5",
        "node;main@/usr/bin/node;j:LazyCompile:*handle app.js:1;recurse;recurse;recurse 20",
        "node;n:[lost: stack map full] 10",
        quality=Quality(
            expected=120,
            taken=108,
            counted=100,
            idle=6,
            losses=(Loss("stack map full", 10, True), Loss("user stack could not be read", 2, False)),
        ),
        provenance=Provenance(
            mode="cpu",
            event="cpu-clock",
            period=10_101_010,
            frequency_hz=99,
            started_unix_ns=1_700_000_000 * 10**9,
            duration_ns=30 * 10**9,
            host="web-1",
            kernel="6.18.0",
            cpus=2,
            engine="libbpf 1.1",
            targets="all processes",
            version="0.1.0",
            notes=("nginx exited with status 3.",),
        ),
    )


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """Return names that some tool was broken by."""
    return (
        "</script><script>alert(1)</script>",
        "</title></text><script>alert(1)</script>",
        "]]>",
        "\x1b]0;owned\x07",
        "nul\x00",
        "\udc80\ud800",
        "a;b 9\nevil",
        "&amp;<!--",
        '" onload="alert(1)',
        "\u202egnp.exe",
        "\ufffe\uffff\ufeff",
        "漢字😀",
        "",
        "$$",
    )

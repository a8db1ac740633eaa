"""Palette: the colour of a frame, from its kind and the hash of its name.

The kind chooses a band of hues, the name a place in it: the same function has the same colour in every
picture. All colours are light enough for black text.
"""

from colorsys import hls_to_rgb
from functools import cache
from typing import NamedTuple
from zlib import crc32

from pyprof.symbolize.frame import FrameKind


class _Band(NamedTuple):
    """Half-open ranges: hue in degrees, lightness and saturation in percent."""

    hue: tuple[int, int]
    lightness: tuple[int, int]
    saturation: int


KIND_WORDS = {
    FrameKind.PROCESS: "process",
    FrameKind.USER: "user",
    FrameKind.INLINED: "inlined",
    FrameKind.JIT: "JIT",
    FrameKind.KERNEL: "kernel",
    FrameKind.NOTE: "note",
}

_BANDS = {
    FrameKind.PROCESS: _Band((205, 220), (78, 84), 22),
    FrameKind.USER: _Band((36, 54), (60, 72), 88),
    FrameKind.INLINED: _Band((172, 192), (66, 76), 48),
    FrameKind.JIT: _Band((92, 128), (64, 75), 52),
    FrameKind.KERNEL: _Band((4, 20), (66, 75), 86),
    FrameKind.NOTE: _Band((0, 1), (76, 84), 0),
}


def frame_colour(name: str, kind: FrameKind) -> str:
    """Return "#rrggbb" for a frame."""
    digest = crc32(name.encode("utf-8", "surrogatepass"))
    return _colour(_BANDS[kind], digest & 0xF0, digest >> 8 & 0xF0)


def kind_colour(kind: FrameKind) -> str:
    """Return the middle colour of a kind, for the legend."""
    return _colour(_BANDS[kind], 128, 128)


@cache
def _colour(band: _Band, hue: int, lightness: int) -> str:
    red, green, blue = hls_to_rgb(
        _between(band.hue, hue) / 360, _between(band.lightness, lightness) / 100, band.saturation / 100
    )
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _between(limits: tuple[int, int], byte: int) -> float:
    start, limit = limits
    return start + (limit - start) * byte / 256

"""Which files hold code that keeps frame pointers, and therefore may leave out call frame information.

Source: Go, src/cmd/link/internal/ld/elf.go (sections); Go on amd64 keeps frame pointers since 1.7.
"""

from pyprof.symbolize.layout import Image, Layout, section_name

_GO_SECTIONS = (b".gopclntab", b".note.go.buildid", b".go.buildinfo")


def keeps_frame_pointers(image: Image, layout: Layout) -> bool:
    """Return whether a file is a Go program; in others a function may use rbp for anything."""
    return any(section_name(image, layout, section) in _GO_SECTIONS for section in layout.sections)

"""Finding the one FDE that covers a virtual offset of an ELF file.

.eh_frame is searched through the table of .eh_frame_hdr, and read as a whole where there is no such table;
.debug_frame is asked for what it does not cover. The entry with the last start at or below the offset is
the only one that can cover it, as in libgcc.

Source: Linux Standard Base Core 5.0, 10.6; gcc, libgcc/unwind-dw2-fde-dip.c (_Unwind_Find_FDE).
"""

from functools import cached_property

from pyprof.symbolize.cfi_entry import FrameEntry, FrameSection, frame_entry
from pyprof.symbolize.cfi_index import ScannedTable, SearchTable, loaded_segments, place_of, search_table
from pyprof.symbolize.layout import Image, Layout, section_name

_SHF_COMPRESSED = 0x800


class FrameTable:
    """The call frame information of one ELF file, read where and when it is asked for."""

    def __init__(self, image: Image, layout: Layout) -> None:
        self._image = image
        self._layout = layout

    def entry_at(self, target: int) -> FrameEntry | None:
        """Return the FDE that covers a virtual offset, None when there is none.

        Raises: SymbolizeError when it cannot be read.
        """
        return self._covering(self._frames, target) or self._covering(self._debug_frames, target)

    def _covering(self, table: SearchTable | ScannedTable | None, target: int) -> FrameEntry | None:
        place = table.place_at(target) if table else None
        if place is None:
            return None
        entry = frame_entry(self._image, place.section, place.position)
        return entry if entry.start <= target < entry.limit else None

    @cached_property
    def _frames(self) -> SearchTable | ScannedTable | None:
        table = search_table(self._image, self._layout)
        if table and table.row_count:
            return table
        section = self._section(b".eh_frame")
        if section is None and table:
            place = place_of(loaded_segments(self._layout), table.frames_start)
            section = place and FrameSection(
                place.position, place.section.limit, table.frames_start, is_debug=False
            )
        return ScannedTable(self._image, section) if section else None

    @cached_property
    def _debug_frames(self) -> ScannedTable | None:
        section = self._section(b".debug_frame")
        return ScannedTable(self._image, section) if section else None

    def _section(self, name: bytes) -> FrameSection | None:
        for section in self._layout.sections:
            is_readable = section.size_bytes and not section.flags & _SHF_COMPRESSED
            if is_readable and section_name(self._image, self._layout, section) == name:
                limit = section.file_offset + section.size_bytes
                is_debug = name == b".debug_frame"
                return FrameSection(section.file_offset, limit, section.virtual_offset, is_debug)
        return None

"""The forms of a pointer in exception tables: `DW_EH_PE_*`, one byte.

    0x1b = 0x10 | 0x0b     relative to the place of the pointer itself, 4 bytes signed: nearly all files
    0x00                   an address of 8 bytes

Source: LSB 5.0 core, section 10.5.1 (DWARF exception header encoding).
"""

OMITTED = 0xFF
ABSOLUTE, PLACE_RELATIVE, SECTION_RELATIVE = (
    0x00,
    0x10,
    0x30,
)  # the upper half; 0x30 is for .eh_frame_hdr only
# The lower half: the number's form for struct and numpy. LEB128 (1 and 9) cannot be gathered; nobody uses it.
FORMS = {0x0: "<u8", 0x2: "<u2", 0x3: "<u4", 0x4: "<u8", 0xA: "<i2", 0xB: "<i4", 0xC: "<i8"}
SIZES = {0x0: 8, 0x2: 2, 0x3: 4, 0x4: 8, 0xA: 2, 0xB: 4, 0xC: 8}  # bytes


def is_readable(encoding: int) -> bool:
    """Return whether a pointer of this form is a plain number or is relative to its own place."""
    return encoding & 0xF in FORMS and encoding & 0xF0 in (ABSOLUTE, PLACE_RELATIVE)

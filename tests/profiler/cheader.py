"""What a C compiler makes of bpf/unwind.h and bpf/cpu.h: sizes, offsets and constants."""

import re
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

FORMS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Field(NamedTuple):
    offset: int
    size: int


class Layout(NamedTuple):
    """A struct as the compiler lays it out."""

    size: int
    fields: dict[str, Field]

    def image(self, **values: int | bytes) -> bytes:
        """Return the bytes of the struct, fields that are not given zero."""
        image = bytearray(self.size)
        for name, value in values.items():
            field = self.fields[name]
            data = value if isinstance(value, bytes) else struct.pack("=" + FORMS[field.size], value)
            image[field.offset : field.offset + len(data)] = data
        return bytes(image)

    def value(self, image: bytes, name: str) -> int:
        """Return the number in a field."""
        field = self.fields[name]
        (number,) = struct.unpack_from("=" + FORMS[field.size], image, field.offset)
        return int(number)

    def values(self, image: bytes) -> dict[str, int]:
        """Return the numbers in all fields but padding."""
        return {name: self.value(image, name) for name in self.fields if not name.startswith("padding")}


class Header(NamedTuple):
    """What the headers say."""

    structs: dict[str, Layout]
    constants: dict[str, int]


def told_header(bpf: Path, folder: Path) -> Header:
    """Return the headers in the folder `bpf`, told by a C program that includes them."""
    headers = [(bpf / name).read_text() for name in ("unwind.h", "cpu.h")]
    text = re.sub(r"/\*.*?\*/", "", "".join(headers), flags=re.DOTALL)
    lines = []
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, re.DOTALL):
        lines.append(f'printf("struct {name} %zu\\n", sizeof(struct {name}));')
        for field in re.findall(r"(\w+)(?:\[[^]]+\])?;", body):
            place = f"offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field})"
            lines.append(f'printf("field {field} %zu %zu\\n", {place});')
    constants = re.findall(r"#define (\w+) +\(?\w", text)
    constants += re.findall(r"^\s+((?:STAT|END|EXE|MAPPING|CFA|RBP)_\w+),", text, re.MULTILINE)
    lines += [f'printf("constant {name} %llu\\n", (unsigned long long)({name}));' for name in constants]
    includes = "#include <linux/types.h>\n#include <stddef.h>\n#include <stdio.h>\n#include <cpu.h>\n"
    (folder / "told.c").write_text(includes + "int main(void)\n{\n" + "\n".join(lines) + "\n}\n")
    command = ["gcc", "-Wall", "-Werror", f"-I{bpf}", "-o", folder / "told", folder / "told.c"]
    subprocess.run(command, check=True)
    output = subprocess.run([folder / "told"], check=True, capture_output=True, text=True).stdout
    return _parsed(output)


def _parsed(output: str) -> Header:
    header = Header({}, {})
    for kind, name, number, *size in map(str.split, output.splitlines()):
        if kind == "struct":
            layout = header.structs[name] = Layout(int(number), {})
        elif kind == "field":
            layout.fields[name] = Field(int(number), int(size[0]))
        else:
            header.constants[name] = int(number)
    return header

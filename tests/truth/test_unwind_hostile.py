"""Programs whose call frame information lies, and processes of odd shape: the capture goes on and says so."""

import os
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from elftools.elf.elffile import ELFFile

pytestmark = pytest.mark.bpf

LONGEST_S = 12.0  # of a capture of half a second
MOST_MB = 400


class Section(NamedTuple):
    offset: int
    size: int
    header_at: int  # of its section header


def frame_section(path: Path) -> Section:
    with open(path, "rb") as file:
        elf = ELFFile(file)
        index = elf.get_section_index(".eh_frame")
        section = elf.get_section(index)
        return Section(section["sh_offset"], section["sh_size"], elf["e_shoff"] + index * elf["e_shentsize"])


@pytest.fixture
def liar(sample, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a sample program and changes its bytes."""

    def make(change: Callable[[bytearray, Section], None]) -> Path:
        path = tmp_path / "liar"
        shutil.copy(sample("recursion_O2"), path)
        image = bytearray(path.read_bytes())
        change(image, frame_section(path))
        path.write_bytes(image)
        return path

    return make


@pytest.fixture
def captured(capture):
    """Return a function that captures a command within bounds of time and memory; all samples are kept."""

    def run(*command: str):
        began_s = time.monotonic()
        result = capture("-F", "997", "--unwind", "dwarf", "--", *command)
        assert time.monotonic() - began_s < LONGEST_S
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 < MOST_MB
        assert result.result.returncode == 0, result.result.stderr
        assert result.profile.total == result.profile.quality.counted
        return result

    return run


def spins(captured) -> list[tuple[list[str], int]]:
    return [(names, value) for names, value in captured.names("liar") if names[-1] == "spin"]


def test_stack_without_call_frames_is_cut_and_says_why(liar, captured) -> None:
    def empty(image: bytearray, section: Section) -> None:
        image[section.offset : section.offset + section.size] = bytes(section.size)

    stacks = spins(captured(str(liar(empty)), "60", "0.5"))
    assert stacks
    assert all(names[0].startswith("[truncated: ") for names, _ in stacks), stacks


def test_garbage_for_call_frames_keeps_every_leaf(liar, captured) -> None:
    def garbage(image: bytearray, section: Section) -> None:
        noise = random.Random(7).randbytes(section.size)  # noqa: S311 - the same each time
        image[section.offset : section.offset + section.size] = noise

    assert sum(value for _, value in spins(captured(str(liar(garbage)), "60", "0.5"))) > 100


@pytest.mark.parametrize("seed", range(4))
def test_changed_call_frames_cost_nothing_but_callers(seed, liar, captured) -> None:
    def changed(image: bytearray, section: Section) -> None:
        chance = random.Random(seed)  # noqa: S311
        for _ in range(12):
            image[section.offset + chance.randrange(section.size)] = chance.randrange(256)

    stacks = spins(captured(str(liar(changed)), "60", "0.5"))
    assert sum(value for _, value in stacks) > 100


def test_lying_section_size_is_not_believed(liar, captured) -> None:
    def enormous(image: bytearray, section: Section) -> None:
        struct.pack_into("<Q", image, section.header_at + 32, 1 << 40)  # sh_size

    assert spins(captured(str(liar(enormous)), "60", "0.5"))


def test_file_beyond_the_limit_is_told_and_not_read(liar, captured) -> None:
    path = liar(lambda image, section: None)
    os.truncate(path, (1 << 30) + 1)
    result = captured(str(path), "60", "0.5")
    assert "no unwind table of liar: larger than 1 GiB" in result.profile.provenance.notes
    assert all(names[0] == "[truncated: no unwind row]" for names, _ in spins(result))


def test_process_with_3000_mappings_is_walked(sample, captured) -> None:
    mappings = Path("/proc/self/maps").read_text().splitlines()
    library = next(line.split()[-1] for line in mappings if "libc.so" in line)
    result = captured(sample("mappings"), library, "3000", "1")
    stacks = [(names, value) for names, value in result.names("mappings") if names[-1] == "burn"]
    whole = sum(value for names, value in stacks if names[0] == "_start" and names[-2] == "main")
    assert whole >= 0.95 * sum(value for _, value in stacks) > 0, stacks

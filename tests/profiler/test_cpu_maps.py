"""The layout of bpf/cpu.h in Python, held against what a C compiler makes of that file."""

import struct

import pytest
from cheader import Header

from pyprof.profiler import capture, cpu_maps, settings
from pyprof.profiler.capture import Sample
from pyprof.profiler.engine import Stats, Target
from pyprof.profiler.settings import Settings, Targets


def test_header_has_the_structs_that_python_knows(header: Header) -> None:
    assert set(header.structs) == {
        *("cpu_settings", "sample_key", "copied_sample", "stack", "image", "target"),
        *("unwind_rule", "unwind_block", "unwind_chunk", "unwind_exe", "unwind_mapping", "unwind_process"),
        "stack_copy",
    }
    for name, layout in header.structs.items():
        ends = sorted((field.offset, field.offset + field.size) for field in layout.fields.values())
        limits = [0, *(limit for _, limit in ends)]
        assert [start for start, _ in ends] == limits[:-1], f"struct {name} has a hole"
        assert limits[-1] == layout.size


def test_constants_are_those_of_the_header(header: Header) -> None:
    constants = header.constants
    assert (constants["MAX_FRAMES"], constants["COMM_BYTES"]) == (settings.MAX_FRAMES, settings.COMM_BYTES)
    names = ("STACK_NONE", "STACK_MAP_FULL", "STACK_UNREADABLE", "STACK_COLLISION")
    assert [constants[name] for name in names] == [getattr(capture, name) for name in names]


def test_stats_have_the_order_of_the_header(header: Header) -> None:
    names = {name: number for name, number in header.constants.items() if name.startswith("STAT_")}
    assert names.pop("STAT_COUNT") == len(Stats._fields)
    assert names == {f"STAT_{name.upper()}": index for index, name in enumerate(Stats._fields)}
    assert Stats._fields == cpu_maps.STAT_NAMES


def test_settings_that_ask_for_nothing_filter_nothing(header: Header) -> None:
    layout = header.structs["cpu_settings"]
    image = cpu_maps.settings_image(Settings(period=1), self_pid=4711)
    assert len(image) == layout.size
    told = {name: layout.value(image, name) for name in layout.fields if name not in {"comm", "padding"}}
    del told["pidns_inum"]
    filters = ("processes", "threads", "cgroup", "comm")
    assert told == {
        "self_pid": 4711,
        "max_depth": 127,
        **{f"filter_{name}": 0 for name in filters},
        "user_threads": 0,
        "kernel_threads": 0,
        "user_stacks": 1,
        "kernel_stacks": 1,
        "include_idle": 0,
        "per_thread": 0,
        "unwind_tables": 0,
        "verify_stride": 0,
    }
    assert image.endswith(bytes(16))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"targets": Targets(pids=(1,))}, "filter_processes"),
        ({"command": ("make",)}, "filter_processes"),
        ({"targets": Targets(tids=(1,))}, "filter_threads"),
        ({"targets": Targets(cgroup="/c")}, "filter_cgroup"),
        ({"targets": Targets(comm="c")}, "filter_comm"),
        ({"targets": Targets(user_threads=True)}, "user_threads"),
        ({"targets": Targets(kernel_threads=True)}, "kernel_threads"),
        ({"targets": Targets(idle=True)}, "include_idle"),
        ({"per_thread": True}, "per_thread"),
        ({"user_stacks": False}, "user_stacks"),
        ({"kernel_stacks": False}, "kernel_stacks"),
        ({"max_depth": 5}, "max_depth"),
    ],
)
def test_each_setting_changes_its_field_alone(changed: dict[str, object], field: str, header: Header) -> None:
    layout = header.structs["cpu_settings"]
    before = cpu_maps.settings_image(Settings(period=1), self_pid=1)
    after = cpu_maps.settings_image(Settings(period=1, **changed), self_pid=1)  # type: ignore[arg-type]
    numbers = [name for name in layout.fields if name not in {"comm", "padding"}]
    assert [name for name in numbers if layout.value(after, name) != layout.value(before, name)] == [field]


@pytest.mark.parametrize("comm", ["nginx", "a" * 15, "a" * 16, "ü" * 7, "a" * 100])
def test_name_filter_is_cut_as_the_kernel_cuts_and_ends_in_zero(comm: str, header: Header) -> None:
    image = cpu_maps.settings_image(Settings(period=1, targets=Targets(comm=comm)), self_pid=1)
    field = header.structs["cpu_settings"].fields["comm"]
    found = image[field.offset : field.offset + field.size]
    assert found.rstrip(b"\0") == comm.encode()[:15]
    assert found.endswith(b"\0")


def test_name_filter_takes_any_bytes_of_the_command_line(header: Header) -> None:
    image = cpu_maps.settings_image(Settings(period=1, targets=Targets(comm="\udcff")), self_pid=1)
    assert image[header.structs["cpu_settings"].fields["comm"].offset] == 0xFF


@pytest.mark.parametrize("awaits_exec", [False, True])
def test_target_is_packed(awaits_exec: bool, header: Header) -> None:
    layout = header.structs["target"]
    key, value = cpu_maps.target_entry(Target(0xFFFFFFFE, 1 << 40, awaits_exec))
    assert key == struct.pack("=I", 0xFFFFFFFE)
    assert value == layout.image(start_ticks=1 << 40, awaits_exec=awaits_exec)


def test_own_process_is_packed() -> None:
    key, value = cpu_maps.own_entry(0xFFFFFFFE)
    assert key == struct.pack("=I", 0xFFFFFFFE)
    assert len(value) == 4  # bpf/cpu.bpf.c: own_pids; only whether it is there counts


def test_sample_is_parsed(header: Header) -> None:
    key = header.structs["sample_key"].image(
        start_ns=1 << 50,
        user_stack=1 << 63 | 1,
        kernel_stack=2,
        pid=3,
        tid=4,
        image_ns=5,
        comm=b"nginx: \xff;\n",
    )
    expected = Sample(3, 4, 1 << 50, 5, b"nginx: \xff;\n", 1 << 63 | 1, 2, 1 << 40)
    assert cpu_maps.parse_sample(key, struct.pack("=Q", 1 << 40)) == expected


def test_comm_ends_at_its_first_zero_whatever_follows(header: Header) -> None:
    key = header.structs["sample_key"].image(comm=b"new\0old comm....")
    assert cpu_maps.parse_sample(key, bytes(8)).comm == b"new"
    key = header.structs["sample_key"].image(comm=b"sixteen bytes ok")
    assert cpu_maps.parse_sample(key, bytes(8)).comm == b"sixteen bytes ok"


@pytest.mark.parametrize("depth", [0, 1, 126, 127])
def test_stack_is_parsed_leaf_first(depth: int, header: Header) -> None:
    addresses = tuple(range(1 << 63, (1 << 63) + depth))
    image = header.structs["stack"].image(depth=depth, addresses=struct.pack(f"={depth}Q", *addresses))
    assert cpu_maps.parse_stack(image) == addresses


def test_depth_beyond_the_struct_reads_no_further(header: Header) -> None:
    image = header.structs["stack"].image(depth=0xFFFFFFFF)
    assert cpu_maps.parse_stack(image) == (0,) * 127


def test_stat_key_is_an_index() -> None:
    assert cpu_maps.stat_key(9) == struct.pack("=I", 9)

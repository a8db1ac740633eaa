"""Files of other programs are read, and damaged ones are refused in one line."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyprof.profiler.profile import Mapping, Profile, ProfileSample
from pyprof.render import pprof_reader, profile_pb2
from pyprof.render.errors import RenderError
from pyprof.render.pprof import encode_pprof
from pyprof.render.pprof_reader import decode_pprof
from pyprof.symbolize.frame import NO_MAPPING, Frame, FrameKind


def strings_of(message: profile_pb2.Profile, *texts: str | bytes) -> list[int]:
    """Return the indices of texts that are appended to the string table."""
    if not message.string_table:
        message.string_table.append(b"")
    first = len(message.string_table)
    message.string_table.extend(text.encode() if isinstance(text, str) else text for text in texts)
    return list(range(first, first + len(texts)))


def foreign() -> profile_pb2.Profile:
    """Return what Go's runtime would write for `main` calling into libc, which it cannot name."""
    message = profile_pb2.Profile(period=10_000_000, time_nanos=5, duration_nanos=6)
    samples, count, cpu, ns, app, libc, main, file, key, comment, key2 = strings_of(
        message, "samples", "count", "cpu", "nanoseconds", "/bin/app", "/lib/libc.so.6", "main.main",
        "main.go", "thread", "built with -race", "comm",
    )  # fmt: skip
    message.sample_type.add(type=samples, unit=count)
    message.sample_type.add(type=cpu, unit=ns)
    message.period_type.type, message.period_type.unit = cpu, ns
    message.comment.append(comment)
    message.mapping.add(id=3, memory_start=0x400000, memory_limit=0x500000, filename=app)
    message.mapping.add(
        id=9, memory_start=0x7F0000026000, memory_limit=0x7F0000100000, file_offset=0x26000, filename=libc
    )
    message.function.add(id=70, name=main, system_name=main, filename=file)
    message.location.add(id=11, mapping_id=3, address=0x401234).line.add(function_id=70, line=42)
    message.location.add(id=12, mapping_id=9, address=0x7F0000027010)
    for thread in (1, 2):
        sample = message.sample.add(location_id=[12, 11], value=[1, 10_000_000])
        sample.label.add(key=key, num=thread)
        sample.label.add(key=key2, str=app)
    message.sample.add(location_id=[11], value=[0, 0])
    return message


def read(message: profile_pb2.Profile) -> Profile:
    """Return the profile in a message."""
    return decode_pprof(gzip.compress(message.SerializeToString()))


def test_foreign_file_is_read_with_its_last_value_and_file_offsets() -> None:
    profile = read(foreign())
    assert profile.unit == "nanoseconds"
    assert profile.samples == (ProfileSample((0, 1), 20_000_000, "/bin/app"),)
    assert profile.frames == (
        Frame("main.main", FrameKind.USER, "/bin/app", 0x1234, 0, 42, "main.go"),
        Frame("[libc.so.6+0x27010]", FrameKind.USER, "/lib/libc.so.6", 0x27010, 1),
    )
    assert profile.mappings == (
        Mapping(0, 0x100000, 0, "/bin/app"),
        Mapping(0x26000, 0x100000, 0x26000, "/lib/libc.so.6"),
    )
    provenance = profile.provenance
    assert (provenance.event, provenance.period, provenance.duration_ns) == ("cpu", 10_000_000, 6)
    assert provenance.notes == ()
    assert decode_pprof(encode_pprof(profile)) == profile


def test_default_sample_type_selects_the_value() -> None:
    message = foreign()
    message.default_sample_type = message.sample_type[0].type
    profile = read(message)
    assert (profile.unit, profile.total) == ("samples", 2)


def test_file_without_gzip_and_in_several_members_is_read() -> None:
    data = foreign().SerializeToString()
    halves = gzip.compress(data[:50]) + gzip.compress(data[50:])
    assert decode_pprof(data) == decode_pprof(halves) == read(foreign())


def test_equal_code_of_two_processes_merges() -> None:
    message = foreign()
    again = message.mapping.add()
    again.CopyFrom(message.mapping[1])
    again.id, again.memory_start, again.memory_limit = 10, 0x26000, 0x100000
    message.location.add(id=13, mapping_id=10, address=0x27010)
    message.sample.add(location_id=[13, 11], value=[1, 10_000_000])
    profile = read(message)
    assert len(profile.mappings) == len(profile.frames) == 2


def test_kernel_and_unmapped_locations_of_perf_get_their_kind() -> None:
    message = foreign()
    kernel, module, name = strings_of(
        message, "[kernel.kallsyms]_stext", "/lib/modules/6.1/net/tls.ko.xz", "do_idle"
    )
    message.function.add(id=71, name=name)
    message.mapping.add(
        id=20, memory_start=0xFFFFFFFF81000000, memory_limit=0xFFFFFFFF82000000, filename=kernel
    )
    message.mapping.add(
        id=21, memory_start=0xFFFFFFFFC0000000, memory_limit=0xFFFFFFFFC0001000, filename=module
    )
    message.location.add(id=20, mapping_id=20, address=0xFFFFFFFF81000010).line.add(function_id=71)
    message.location.add(id=21, mapping_id=21, address=0xFFFFFFFFC0000010).line.add(function_id=71)
    message.location.add(id=22, address=0x10)
    message.location.add(id=23).line.add(function_id=71)
    message.sample.add(location_id=[20, 21, 22, 23], value=[1, 1])
    frames = read(message).frames[2:]
    assert [(frame.name, frame.kind, frame.module) for frame in frames] == [
        ("do_idle", FrameKind.USER, ""),
        ("[0x10]", FrameKind.USER, ""),
        ("do_idle", FrameKind.KERNEL, "tls"),
        ("do_idle", FrameKind.KERNEL, ""),
    ]
    assert [frame.address for frame in frames[2:]] == [0xFFFFFFFFC0000010, 0xFFFFFFFF81000010]
    assert frames[0].mapping == NO_MAPPING


def test_lines_before_the_last_are_inlined() -> None:
    message = foreign()
    (inner,) = strings_of(message, "strings.Index")
    message.function.add(id=71, name=inner)
    line = message.location[0].line[0]
    lines = [
        profile_pb2.Line(function_id=71, line=7),
        profile_pb2.Line(function_id=line.function_id, line=42),
    ]
    del message.location[0].line[:]
    message.location[0].line.extend(lines)
    frames = read(message).frames
    assert [(frame.name, frame.kind) for frame in frames[:2]] == [
        ("main.main", FrameKind.USER),
        ("strings.Index", FrameKind.INLINED),
    ]


def test_names_are_made_printable() -> None:
    message = foreign()
    (evil,) = strings_of(message, b"a\x1b[2J\xff\xe2\x80\xae\n")
    message.function[0].name = evil
    assert read(message).frames[0].name == r"a\x1b[2J\xff\u202e\x0a"


def spoilt(change: str) -> profile_pb2.Profile:
    """Return the foreign file with one thing broken."""
    message = foreign()
    exec(change, {"message": message})  # noqa: S102  one line of the table below
    return message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("message.function[0].name = 99", "string 99 is outside"),
        ("message.function[0].name = -1", "string -1 is outside"),
        ("message.comment.append(1 << 40)", "string 1099511627776 is outside"),
        ("message.sample[0].location_id.append(77)", "sample 0 names location 77"),
        ("message.location[0].mapping_id = 5", "location 11 names mapping 5"),
        ("message.location[0].line[0].function_id = 5", "function 5"),
        ("message.location[1].id = 11", "two locations 11"),
        ("message.mapping[0].id = 0", "mapping has the number 0"),
        ("message.sample[1].value[1] = -3", "sample 1 has the value -3"),
        ("message.sample[1].value.append(3)", "sample 1 has 3 values for 2"),
        ("del message.sample_type[:]", "no sample type"),
    ],
)
def test_broken_file_is_refused_with_what_is_wrong(change: str, expected: str) -> None:
    with pytest.raises(RenderError, match=expected) as caught:
        read(spoilt(change))
    text = str(caught.value)
    assert text.startswith("cannot read pprof: ")
    assert "; " in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "no sample type"),
        (b"main;work 12\n", "not a profile.proto message"),
        (gzip.compress(b"\xff" * 40), "not a profile.proto message"),
        (encode_pprof(Profile(unit="samples", samples=(), frames=()))[:-9], "ends early"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 20, "invalid block type; the file is damaged"),
    ],
)
def test_other_content_is_refused(data: bytes, expected: str) -> None:
    with pytest.raises(RenderError, match=expected):
        decode_pprof(data)


def test_gzip_bomb_is_refused_in_bounded_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    tracemalloc.start()
    with pytest.raises(RenderError, match="unpacks to more than 8388608 bytes"):
        decode_pprof(bomb, max_message_bytes=8 << 20)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 << 20


def test_too_large_file_is_refused() -> None:
    with pytest.raises(RenderError, match="the file has 11 bytes, more than 10"):
        decode_pprof(bytes(11), max_file_bytes=10)


def test_stacks_that_multiply_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pprof_reader, "MAX_STACK_ENTRIES", 1000)
    message = foreign()
    message.location[0].line.extend([message.location[0].line[0]] * 99)
    message.sample.add(location_id=[11] * 20, value=[1, 1])
    with pytest.raises(RenderError, match="more than 1000 frames"):
        read(message)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_file_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(foreign().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        profile = decode_pprof(bytes(content))
    except RenderError:
        return
    saved = encode_pprof(profile)
    assert encode_pprof(decode_pprof(saved)) == saved

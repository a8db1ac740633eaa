"""Names put into the frames of a profile, and what is said where there are none."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from pyprof.profiler import name as naming
from pyprof.profiler.interrupts import SymbolsSkipped
from pyprof.profiler.name import is_unnamed, reopened, with_build_ids, with_kernel_names, with_user_names
from pyprof.profiler.profile import Mapping, Profile, ProfileSample, Provenance
from pyprof.profiler.resolve import Unnamed, offset_name
from pyprof.render.pprof import encode_pprof
from pyprof.render.pprof_reader import decode_pprof
from pyprof.symbolize.error import SymbolizeError
from pyprof.symbolize.frame import Frame, FrameKind
from pyprof.symbolize.kallsyms import KernelSymbols
from pyprof.symbolize.vdso import vdso_image
from pyprof.symbolize.worker import Answer, Request

KALLSYMS = b"""\
ffffffff81000000 T _stext
ffffffff81000100 T do_work
ffffffffc0000100 t helper\t[some_module]
"""
DO_WORK, HELPER, NOWHERE = 0xFFFFFFFF81000110, 0xFFFFFFFFC0000110, 0x10
HIDDEN = "kernel symbols hidden (kernel.kptr_restrict=2): kernel frames shown as [kernel]; ..."

Build = Callable[..., Unnamed]


def kernel_frame(address: int) -> Frame:
    return Frame("[kernel]", FrameKind.KERNEL, "[kernel]", address)


def profile_of(*frames: Frame, mappings: Sequence[Mapping] = (), notes: tuple[str, ...] = ()) -> Profile:
    return Profile(
        unit="samples",
        samples=(ProfileSample(tuple(range(len(frames))), 1, "prog"),),
        frames=frames,
        mappings=tuple(mappings),
        provenance=Provenance(notes=notes),
    )


def unnamed_frame(path: str, offset: int, mapping: int) -> Frame:
    return Frame(offset_name(path, offset), FrameKind.USER, path, offset, mapping)


@pytest.fixture
def build() -> Build:
    """Return a function from {path: offsets} to a profile without names; descriptors are 100, 101, ..."""

    def make(files: dict[str, tuple[int, ...]], descriptors: tuple[int, ...] | None = None) -> Unnamed:
        mappings = [Mapping(0, 1 << 20, 0, path, "abcd") for path in files]
        frames = [
            unnamed_frame(path, offset, index)
            for index, (path, offsets) in enumerate(files.items())
            for offset in offsets
        ]
        default = tuple(range(100, 100 + len(files)))
        return Unnamed(profile_of(*frames, mappings=mappings), descriptors or default)

    return make


def answered(request: Request, *, build_id: str = "", failure: str = "") -> Answer:
    """Return an answer that names each offset after itself, and offset 0 not at all."""
    names = tuple(f"f{offset}" if offset else "" for offset in request.offsets)
    return Answer(request.binary.key, names, build_id, failure)


def all_answered(requests: Sequence[Request]) -> Iterable[Answer]:
    return map(answered, requests)


def failing(requests: Sequence[Request]) -> Iterable[Answer]:
    for request in requests:
        yield Answer(request.binary.key, ("",) * len(request.offsets), "", "not an ELF file")


def names(profile: Profile) -> list[str]:
    return [frame.name for frame in profile.frames]


def test_kernel_frames_are_named_with_their_module() -> None:
    profile = profile_of(kernel_frame(DO_WORK), kernel_frame(HELPER))
    named = with_kernel_names(profile, KernelSymbols(KALLSYMS))
    assert [(frame.name, frame.module) for frame in named.frames] == [
        ("do_work", "[kernel]"),
        ("helper", "some_module"),
    ]
    assert named.samples == profile.samples


def test_kernel_address_without_a_symbol_is_told() -> None:
    named = with_kernel_names(profile_of(kernel_frame(NOWHERE)), KernelSymbols(KALLSYMS))
    assert names(named) == ["[kernel+0x10]"]
    assert named.provenance.notes == ()


def test_hidden_kernel_symbols_are_told_once() -> None:
    kernel = KernelSymbols(b"", HIDDEN)
    named = with_kernel_names(profile_of(kernel_frame(DO_WORK), kernel_frame(HELPER)), kernel)
    assert names(named) == ["[kernel]", "[kernel]"]
    assert named.provenance.notes == (HIDDEN,)
    assert with_kernel_names(named, kernel).provenance.notes == (HIDDEN,)


def test_hidden_kernel_symbols_are_no_matter_without_kernel_frames(build: Build) -> None:
    profile = build({"/bin/a": (1,)}).profile
    assert with_kernel_names(profile, KernelSymbols(b"", HIDDEN)).provenance.notes == ()


def test_named_frames_stay_as_they_are() -> None:
    frames = (
        Frame("already", FrameKind.KERNEL, "[kernel]", DO_WORK),
        Frame("[lost: stack map full]", FrameKind.NOTE),
        Frame("main", FrameKind.USER, "/bin/a", DO_WORK),
    )
    profile = profile_of(*frames)
    assert with_kernel_names(profile, KernelSymbols(KALLSYMS)) is profile


def test_user_frames_are_named(build: Build) -> None:
    named = with_user_names(build({"/bin/a": (1, 2), "/bin/b": (3,)}), symbolize=all_answered)
    assert names(named) == ["f1", "f2", "f3"]
    assert [frame.address for frame in named.frames] == [1, 2, 3]
    assert named.provenance.notes == ()


def test_each_file_is_asked_once_for_each_offset(build: Build) -> None:
    seen: list[Request] = []

    def noting(requests: Sequence[Request]) -> Iterable[Answer]:
        seen.extend(requests)
        return all_answered(requests)

    unnamed = build({"/bin/a": (2, 1), "/bin/b": (3,)})
    frames = (*unnamed.profile.frames, unnamed.profile.frames[0]._replace(line=7))
    with_user_names(
        unnamed._replace(profile=naming.replace(unnamed.profile, frames=frames)), symbolize=noting
    )
    assert [(one.binary.key, one.binary.fd, one.binary.build_id, one.offsets) for one in seen] == [
        (0, 100, "abcd", (2, 1)),
        (1, 101, "abcd", (3,)),
    ]


def test_frame_without_a_symbol_keeps_module_and_offset(build: Build) -> None:
    named = with_user_names(build({"/bin/a": (0, 1)}), symbolize=all_answered)
    assert names(named) == ["[a+0x0]", "f1"]
    assert named.provenance.notes == ()


def test_profile_without_unnamed_frames_starts_no_worker() -> None:
    requested: list[Sequence[Request]] = []

    def noting(requests: Sequence[Request]) -> Iterable[Answer]:
        requested.append(requests)
        return ()

    profile = profile_of(Frame("main", FrameKind.USER, "/bin/a", 1, 0), mappings=[Mapping(0, 9, 0, "/bin/a")])
    assert with_user_names(Unnamed(profile, (-1,)), symbolize=noting) == profile
    assert requested == [[]]


def test_build_id_that_the_file_has_is_kept(build: Build) -> None:
    named = with_user_names(
        build({"/bin/a": (1,)}),
        symbolize=lambda requests: [answered(one, build_id="ef01") for one in requests],
    )
    assert named.mappings[0].build_id == "ef01"


def test_build_ids_are_looked_up_without_names_where_they_are_unknown(build: Build) -> None:
    seen: list[Request] = []

    def noting(requests: Sequence[Request]) -> Iterable[Answer]:
        seen.extend(requests)
        return [answered(one, build_id="ef01") for one in requests]

    unnamed = build({"/bin/known": (1,), "/bin/a": (2,), "/bin/gone": (3,)}, (100, 101, -1))
    known, *unknown = unnamed.profile.mappings
    mappings = (known, *(mapping._replace(build_id="") for mapping in unknown))
    profile = naming.replace(unnamed.profile, mappings=mappings)
    found = with_build_ids(unnamed._replace(profile=profile), symbolize=noting)
    assert [(one.binary.fd, one.offsets) for one in seen] == [(101, ())]
    assert [mapping.build_id for mapping in found.mappings] == ["abcd", "ef01", ""]
    assert names(found) == ["[known+0x1]", "[a+0x2]", "[gone+0x3]"]


@pytest.mark.usefixtures("nothing_is_left")
def test_build_id_of_a_real_file_is_found_without_names() -> None:
    with open(sys.executable, "rb") as file:
        unnamed = Unnamed(
            profile_of(unnamed_frame(file.name, 1, 0), mappings=[Mapping(0, 1 << 12, 0, file.name)]),
            (file.fileno(),),
        )
        (mapping,) = with_build_ids(unnamed).mappings
    notes = subprocess.run(["readelf", "-n", sys.executable], check=True, capture_output=True, text=True)
    told = re.search(r"Build ID: ([0-9a-f]+)", notes.stdout)
    assert mapping.build_id == (told[1] if told else "")


def test_failure_is_told_with_the_printable_name_of_the_file(build: Build) -> None:
    named = with_user_names(build({"/bin/\x1b[2J": (1,)}), symbolize=failing)
    assert named.provenance.notes == (r"no symbols of \x1b[2J: not an ELF file",)
    assert names(named) == [r"[\x1b[2J+0x1]"]


@pytest.mark.parametrize(("files", "lines"), [(5, 5), (6, 6), (100, 6)])
def test_at_most_five_failures_are_told_and_the_rest_counted(files: int, lines: int, build: Build) -> None:
    named = with_user_names(build({f"/bin/{index:03}": (1,) for index in range(files)}), symbolize=failing)
    notes = named.provenance.notes
    assert len(notes) == lines
    assert notes[0] == "no symbols of 000: not an ELF file"
    if files > 5:
        assert notes[-1] == f"no symbols of {files - 5} more files"


def test_file_that_could_not_be_opened_is_told_and_not_asked(build: Build) -> None:
    named = with_user_names(build({"/bin/a": (1,), "/bin/b": (2,)}, (-1, 101)), symbolize=all_answered)
    assert names(named) == ["[a+0x1]", "f2"]
    assert named.provenance.notes == ("no symbols of a: the file could not be opened",)


def test_mangled_names_are_used_and_told(build: Build) -> None:
    named = with_user_names(
        build({"/bin/a": (1,)}),
        symbolize=lambda requests: [answered(one, failure="names left mangled: crash") for one in requests],
    )
    assert names(named) == ["f1"]
    assert named.provenance.notes == ("no symbols of a: names left mangled: crash",)


def test_skipping_keeps_the_names_so_far_and_says_so(build: Build) -> None:
    def interrupted(requests: Sequence[Request]) -> Iterable[Answer]:
        yield answered(requests[0])
        raise SymbolsSkipped

    named = with_user_names(build({"/bin/a": (1,), "/bin/b": (2,)}), symbolize=interrupted)
    assert names(named) == ["f1", "[b+0x2]"]
    (note,) = named.provenance.notes
    assert note.startswith("symbols were skipped on request")


def test_earlier_notes_stay_first(build: Build) -> None:
    unnamed = build({"/bin/a": (1,)})
    provenance = Provenance(notes=("earlier",))
    profile = naming.replace(unnamed.profile, provenance=provenance)
    named = with_user_names(unnamed._replace(profile=profile), symbolize=failing)
    assert named.provenance.notes == ("earlier", "no symbols of a: not an ELF file")


def test_vdso_is_asked_with_this_processs_image(build: Build) -> None:
    seen: list[Request] = []

    def noting(requests: Sequence[Request]) -> Iterable[Answer]:
        seen.extend(requests)
        return all_answered(requests)

    named = with_user_names(build({"[vdso]": (1,)}, (-1,)), symbolize=noting)
    assert names(named) == ["f1"]
    assert (seen[0].binary.fd, seen[0].binary.data) == (-1, vdso_image())


def test_machine_without_a_vdso_names_the_rest(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> bytes:
        raise SymbolizeError("this process has no vdso")

    monkeypatch.setattr(naming, "vdso_image", absent)
    named = with_user_names(build({"[vdso]": (1,), "/bin/a": (2,)}, (-1, 101)), symbolize=all_answered)
    assert names(named) == ["[vdso+0x1]", "f2"]


@pytest.mark.parametrize(
    ("changed", "unnamed"),
    [
        ({}, True),
        ({"name": "main"}, False),
        ({"kind": FrameKind.JIT}, False),
        ({"kind": FrameKind.KERNEL}, False),
        ({"mapping": -1}, False),
        ({"address": 2}, False),
    ],
)
def test_only_a_user_frame_named_after_its_place_wants_a_name(
    changed: dict[str, object], unnamed: bool
) -> None:
    assert is_unnamed(unnamed_frame("/bin/a", 1, 0)._replace(**changed)) == unnamed


@pytest.mark.usefixtures("nothing_is_left")
def test_saved_profile_gets_this_machines_files_where_a_name_is_missing(tmp_path: Path) -> None:
    mappings = [
        Mapping(0, 1 << 12, 0, str(tmp_path / name), "abcd") for name in ("a", "named", "gone", "fifo")
    ]
    for name in ("a", "named"):
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "fifo")
    frames = [unnamed_frame(mapping.path, 1, index) for index, mapping in enumerate(mappings)]
    frames[1] = frames[1]._replace(name="main")
    saved = decode_pprof(encode_pprof(profile_of(*frames, mappings=mappings)))
    unnamed = reopened(saved)
    by_path = dict(zip((mapping.path for mapping in saved.mappings), unnamed.descriptors, strict=True))
    opened = {Path(path).name: fd for path, fd in by_path.items() if fd >= 0}
    try:
        assert list(opened) == ["a"]
        assert os.pread(opened["a"], 10, 0) == b"a"
        named = with_user_names(unnamed, symbolize=all_answered)
        assert sorted(names(named)) == sorted(["f1", "main", "[gone+0x1]", "[fifo+0x1]"])
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


@pytest.mark.usefixtures("nothing_is_left")
def test_saved_vdso_is_not_looked_for_as_a_file() -> None:
    mapping = Mapping(0, 1 << 12, 0, "[vdso]")
    assert reopened(profile_of(unnamed_frame("[vdso]", 1, 0), mappings=[mapping])).descriptors == (-1,)


@pytest.mark.usefixtures("nothing_is_left")
def test_saved_mapping_without_a_build_id_is_not_named_from_todays_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("of another version")
    mapping = Mapping(0, 1 << 12, 0, str(tmp_path / "a"), build_id="")
    (descriptor,) = reopened(profile_of(unnamed_frame(mapping.path, 1, 0), mappings=[mapping])).descriptors
    if descriptor >= 0:
        os.close(descriptor)
    assert descriptor == -1


def test_saved_vdso_without_a_build_id_is_not_named_from_this_kernels() -> None:
    mapping = Mapping(0, 1 << 13, 0, "[vdso]", build_id="")
    unnamed = reopened(profile_of(unnamed_frame("[vdso]", 1, 0), mappings=[mapping]))
    assert names(with_user_names(unnamed, symbolize=all_answered)) == ["[vdso+0x1]"]


def test_saved_mapping_without_a_build_id_is_told_as_such() -> None:
    mapping = Mapping(0, 1 << 13, 0, "/bin/cat", build_id="")
    unnamed = reopened(profile_of(unnamed_frame("/bin/cat", 1, 0), mappings=[mapping]))
    (note,) = with_user_names(unnamed, symbolize=all_answered).provenance.notes
    assert "build id" in note

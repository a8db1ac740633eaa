"""The libbpf engine: loads the object that was built ahead of time. Nothing is compiled here."""

import errno
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from pyprof.profiler import cpu_maps
from pyprof.profiler.copies import RING_BYTES, Copies
from pyprof.profiler.engine import Counts, Stats, Target
from pyprof.profiler.errors import ExitCode, ProfilerError
from pyprof.profiler.libbpf import BpfObject, LibbpfError, Library, RingBuffer
from pyprof.profiler.settings import Settings, Unwind
from pyprof.profiler.unwind_maps import MAP_ENTRIES, UnwindMaps

OBJECTS = Path(__file__).resolve().parent.parent / "bpf" / "objects"
SAMPLE, NOTE_EXEC = "sample_cpu", "note_exec"
FOLLOW_COMMAND = ("follow_fork", "forget_process")  # loaded only for a launched command


class LibbpfEngine:
    """A SamplingEngine on libbpf.so.1."""

    def __init__(self, *, objects: Path = OBJECTS) -> None:
        self._library = Library()
        self._object: BpfObject | None = None
        self._ring: RingBuffer | None = None
        self._path = objects / platform.machine() / "cpu.bpf.o"
        self._links: dict[int, int] = {}  # CPU: link

    @property
    def name(self) -> str:
        return f"libbpf {self._library.version}"

    def load(self, settings: Settings, *, self_pid: int, cpus: int) -> None:
        if not self._path.exists():
            raise ProfilerError(
                f"no BPF object for {platform.machine()} at {self._path}; pyprof is built for: "
                + ", ".join(sorted(path.parent.name for path in self._path.parents[1].glob("*/cpu.bpf.o")))
            )
        program = self._object = BpfObject(self._library, str(self._path))
        program.set_rodata(cpu_maps.settings_image(settings, self_pid, cpus))
        self._size_maps(program, settings, cpus)
        attached = [NOTE_EXEC, *(FOLLOW_COMMAND if settings.command else ())]
        for name in () if settings.command else FOLLOW_COMMAND:
            program.leave_out(name)
        program.load()
        if settings.targets.cgroup:
            self._set_cgroup(program, settings.targets.cgroup)
        for name in attached:
            program.attach(name)

    def _size_maps(self, program: BpfObject, settings: Settings, cpus: int) -> None:
        room = settings.stack_room(cpus)
        program.set_max_entries("stacks", room)
        program.set_max_entries("counts", room)
        if not (settings.command or settings.targets.pids or settings.targets.tids):
            program.set_max_entries("targets", 1)
        if settings.unwind is Unwind.TABLES:
            for name, entries in MAP_ENTRIES.items():
                program.set_max_entries(name, entries)
            program.set_max_entries("copies", RING_BYTES)
            program.set_max_entries("copy_rooms", self._library.possible_cpus)

    def add_targets(self, targets: Sequence[Target]) -> None:
        entries = self._loaded.map("targets")
        for target in targets:
            entries.update(*cpu_maps.target_entry(target))

    def unwind_maps(self) -> UnwindMaps:
        return UnwindMaps({name: self._loaded.map(name) for name in MAP_ENTRIES})

    def copies(self) -> Copies:
        self._ring = self._loaded.ring("copies")
        return Copies(self._ring)

    def add_own(self, pid: int) -> None:
        self._loaded.map("own_pids").update(*cpu_maps.own_entry(pid))

    def remove_own(self, pid: int) -> None:
        key, _ = cpu_maps.own_entry(pid)
        self._loaded.map("own_pids").delete(key)

    def attach(self, cpu: int, event_fd: int) -> None:
        self._links[cpu] = self._loaded.attach_perf_event(SAMPLE, event_fd)

    def detach(self, cpu: int) -> None:
        self._loaded.detach(self._links.pop(cpu))

    def detach_all(self) -> None:
        self._links.clear()
        self._loaded.detach_all()

    def stats(self) -> Stats:
        values = self._loaded.map("stats")
        totals = []
        for index in range(len(cpu_maps.STAT_NAMES)):
            per_cpu = values.per_cpu_values(cpu_maps.stat_key(index))
            totals.append(sum(map(cpu_maps.parse_u64, per_cpu)))
        return Stats(*totals)

    def read(self) -> Counts:
        program = self._loaded
        samples = [cpu_maps.parse_sample(*item) for item in program.map("counts").items()]
        stacks = {
            cpu_maps.parse_u64(item.key): cpu_maps.parse_stack(item.value)
            for item in program.map("stacks").items()
        }
        return Counts(tuple(samples), stacks, self.stats())

    def close(self) -> None:
        if self._ring:
            self._ring.close()
            self._ring = None
        if self._object:
            self._object.close()
            self._object = None

    @property
    def _loaded(self) -> BpfObject:
        if self._object is None:
            raise ProfilerError("the BPF object is not loaded", ExitCode.BUG)
        return self._object

    def _set_cgroup(self, program: BpfObject, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            message = f"cannot open cgroup {path}: {error.strerror}; give the folder of a cgroup v2"
            raise ProfilerError(message, ExitCode.USAGE) from error
        try:
            program.map("cgroup").update(cpu_maps.stat_key(0), fd.to_bytes(4, "little"))
        except LibbpfError as error:
            if error.errno != errno.EBADF:
                raise
            message = f"{path} is not a cgroup of version 2; `mount -t cgroup2` shows where those are"
            raise ProfilerError(message, ExitCode.USAGE) from error
        finally:
            os.close(fd)

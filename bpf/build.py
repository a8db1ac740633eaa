"""Build the BPF objects with clang and write the manifest that a test holds against the sources.

Usage: python bpf/build.py [--check]

`--check` compares the manifest with the sources and objects and builds nothing. The target machine
needs neither clang nor kernel headers: offsets are relocated against its BTF when an object is loaded.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MANIFEST = FOLDER / "manifest.json"
CLANGS = ("clang-14", "clang", "clang-16", "clang-19")
STRIPS = ("llvm-strip-14", "llvm-strip", "llvm-strip-16", "llvm-strip-19")
TARGET_MACROS = {"x86_64": "__TARGET_ARCH_x86"}  # uname -m: what bpf_tracing.h wants to hear


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        stale = stale_files()
        for name in stale:
            print(f"{name} is not what bpf/manifest.json says; run: make bpf", file=sys.stderr)
        return 1 if stale else 0
    build()
    return 0


def stale_files() -> list[str]:
    """Return the sources and objects, relative to bpf/, whose hash is not in the manifest; sorted."""
    manifest = json.loads(MANIFEST.read_text())
    recorded = {**manifest["sources"], **manifest["objects"]}
    present = {name: digest(FOLDER / name) for name in [*sources(), *objects()]}
    return sorted(name for name in {*recorded, *present} if recorded.get(name) != present.get(name))


def build() -> None:
    clang, strip = first_installed(CLANGS), first_installed(STRIPS)
    for machine in TARGET_MACROS:
        (FOLDER / "objects" / machine).mkdir(parents=True, exist_ok=True)
    for name in objects():
        compile_object(clang, strip, name)
    version = subprocess.run([clang, "--version"], check=True, capture_output=True, text=True)
    manifest = {
        "compiler": version.stdout.splitlines()[0],
        "objects": {name: digest(FOLDER / name) for name in objects()},
        "sources": {name: digest(FOLDER / name) for name in sources()},
    }
    MANIFEST.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def compile_object(clang: str, strip: str, name: str) -> None:
    """Build the object `name`, such as objects/x86_64/cpu.bpf.o, keeping BTF and dropping DWARF."""
    target = FOLDER / name
    machine, source = target.parent.name, FOLDER / f"{target.stem}.c"
    flags = ["-g", "-O2", "-target", "bpf", "-mcpu=v3", f"-D{TARGET_MACROS[machine]}", "-Wall", "-Werror"]
    flags += [
        "-I/usr/include/x86_64-linux-gnu",
        f"-ffile-prefix-map={FOLDER}=bpf",
        "-fdebug-compilation-dir=.",
    ]
    subprocess.run([clang, *flags, "-c", str(source), "-o", str(target)], check=True)
    subprocess.run([strip, "-g", str(target)], check=True)


def sources() -> list[str]:
    return sorted(path.name for pattern in ("*.c", "*.h") for path in FOLDER.glob(pattern))


def objects() -> list[str]:
    programs = [path.stem for path in FOLDER.glob("*.bpf.c")]
    return sorted(f"objects/{machine}/{program}.o" for machine in TARGET_MACROS for program in programs)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def first_installed(names: tuple[str, ...]) -> str:
    for name in names:
        if shutil.which(name):
            return name
    raise SystemExit(f"none of {', '.join(names)} is installed; on Debian: apt-get install clang-14 llvm-14")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

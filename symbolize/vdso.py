"""The vdso: the ELF image that the kernel maps into every process, and that no file backs.

    7ffd5a9f2000-7ffd5a9f4000 r-xp 00000000 00:00 0                          [vdso]

Source: man 7 vdso, man 5 proc (maps, mem).
"""

from pathlib import Path

from pyprof.symbolize.error import SymbolizeError

_SIZE_LIMIT = 1 << 20  # bytes; it is one to four pages


def vdso_image(process: Path = Path("/proc/self")) -> bytes:
    """Return the bytes of this process's vdso, which is the same for all 64-bit processes.

    Raises: SymbolizeError when there is none (vdso=0 on the kernel's command line) or it is unreadable.
    """
    try:
        lines = (process / "maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        for line in lines:
            if line.endswith("[vdso]"):
                start, limit = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
                with open(process / "mem", "rb") as memory:
                    memory.seek(start)
                    return memory.read(min(limit - start, _SIZE_LIMIT))
    except OSError as error:
        raise SymbolizeError(f"vdso cannot be read: {error}") from error
    raise SymbolizeError("this process has no vdso")

"""Addresses to frames: kernel symbols, ELF symbol tables, vdso, demangling."""

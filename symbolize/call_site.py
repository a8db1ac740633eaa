r"""Two things that the bytes of x86-64 code tell about the stack.

A return address has a call before it:

    e8 d3 0f 00 00             call   rel32
    ff d0                      call   *%rax                  ff /2: 2 bytes, 3 with a REX prefix
    41 ff 54 24 18             call   *0x18(%r12)            up to 7, 8 with a REX prefix
    ff 15 e2 2f 00 00          call   *0x2fe2(%rip)

A signal handler returns to code that asks the kernel to restore what it interrupted:

    48 c7 c0 0f 00 00 00       mov    $0xf,%rax
    0f 05                      syscall

A thread begins behind such a call of the kernel, with 0 in rax:

    b8 b3 01 00 00             mov    $435,%eax               clone3; clone is 56
    0f 05                      syscall

Source: Intel SDM volume 2, CALL, 2.1.5 (ModR/M and SIB), 2.2.1 (REX); gcc, libgcc/config/i386/linux-unwind.h.
"""

CALL_LIMIT = 7  # bytes that need to be seen before a return address: a prefix makes no difference
SIGNAL_RETURN = bytes.fromhex("48c7c00f0000000f05")
CLONE_CALLS = (bytes.fromhex("b8380000000f05"), bytes.fromhex("b8b30100000f05"))
CLONE_BYTES = 7
SIGNAL_RETURN_CALL = 7  # bytes before its syscall instruction


def ends_in_call(code: bytes) -> bool:
    """Return whether the last instruction in some bytes may be a call.

    code: ends where the return address points to; at least 7 bytes, fewer only at the start of a mapping.
    """
    if code[-5:-4] == b"\xe8":
        return True
    return any(
        code[-size : 1 - size] == b"\xff" and _call_bytes(code[1 - size :]) == size for size in range(2, 8)
    )


def _call_bytes(operand: bytes) -> int:
    """Return the size of the instruction ff /2 whose ModR/M byte comes first; 0 when it is none."""
    modrm = operand[0]
    mode, extension, base = modrm >> 6, modrm >> 3 & 7, modrm & 7
    if extension != 2:
        return 0
    if mode == 3:
        return 2
    has_sib = base == 4
    if has_sib:
        base = operand[1] & 7 if len(operand) > 1 else 0
    is_far = mode == 2 or (mode == 0 and base == 5)  # 32 bits of displacement, relative to rip or to nothing
    return 2 + has_sib + (4 if is_far else mode)

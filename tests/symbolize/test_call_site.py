"""Which bytes are taken for a call."""

import re
import shutil
import subprocess

import pytest

from pyprof.symbolize.call_site import ends_in_call

CALLS = {
    "call rel32": "e8 d3 0f 00 00",
    "call *%rax": "ff d0",
    "call *%r12": "41 ff d4",
    "call *(%rax)": "ff 10",
    "call *(%rsp)": "ff 14 24",
    "call *(%r12)": "41 ff 14 24",
    "call *0x8(%rbp)": "ff 55 08",
    "call *0x18(%r12)": "41 ff 54 24 18",
    "call *0x28(%rsp)": "ff 54 24 28",
    "call *0x2fe2(%rip)": "ff 15 e2 2f 00 00",
    "call *0x128(%rax)": "ff 90 28 01 00 00",
    "call *0x1d00(,%rax,8)": "ff 14 c5 00 1d 00 00",
    "call *0x128(%rsp)": "ff 94 24 28 01 00 00",
    "call *0x128(%r12)": "41 ff 94 24 28 01 00 00",
}
OTHERS = {
    "nop": "90",
    "jmp rel32": "e9 d3 0f 00 00",
    "jmp *%rax": "ff e0",
    "push (%rax)": "ff 30",
    "syscall": "0f 05",
    "call too long ago": "ff d0 90",
    "displacement that is missing": "ff 15 e2 2f 00",
    "nothing": "",
}


@pytest.mark.parametrize("code", CALLS.values(), ids=CALLS)
def test_call_is_seen(code: str) -> None:
    data = bytes.fromhex(code)
    assert ends_in_call(data)
    assert ends_in_call((bytes(7) + data)[-7:])


@pytest.mark.parametrize("code", OTHERS.values(), ids=OTHERS)
def test_other_instruction_is_not_a_call(code: str) -> None:
    assert not ends_in_call((bytes(7) + bytes.fromhex(code))[-7:])
    assert not ends_in_call(bytes.fromhex(code))


def test_every_call_that_objdump_sees_in_libc_is_seen() -> None:
    if not shutil.which("objdump"):
        pytest.skip("objdump is not installed")
    text = subprocess.run(
        [
            "objdump",
            "-d",
            "-w",
            "--start-address=0x26000",
            "--stop-address=0x60000",
            "/lib/x86_64-linux-gnu/libc.so.6",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    calls = re.findall(
        r"^ *[0-9a-f]+:\t([0-9a-f ]+)\t(?:notrack |bnd |data16 )*(?:rex\S* )?call ", text, re.M
    )
    assert len(calls) > 1000
    assert all(ends_in_call(bytes.fromhex(call)[-7:]) for call in calls)

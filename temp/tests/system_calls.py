"""Runs a command under the system call filter of a systemd unit, as systemd would: python system_calls.py UNIT COMMAND …

systemd itself turns the groups of the filter into names (systemd-analyze), libseccomp loads them; the command inherits them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

ALLOW, FAIL = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO
MASKED_EQUAL = 7  # SCMP_CMP_MASKED_EQ
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: masked argument number `arg` equals the value."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64))


def settings_of(unit: Path, name: str) -> list[str]:
    """The values of all lines `name=…`, in order."""
    return [line.partition("=")[2] for line in unit.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}=")]


def allowed_calls(unit: Path) -> set[str]:
    """What SystemCallFilter= leaves, as systemd.exec(5) combines its lines."""
    allowed: set[str] = set()
    for value in settings_of(unit, "SystemCallFilter"):
        calls = {call for word in value.removeprefix("~").split() for call in _calls(word)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def _calls(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True).stdout
    words = [line.split()[0] for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for each in words for call in _calls(each)}


def confine(unit: Path) -> None:
    """Put this process, and what it starts, under the unit's SystemCallFilter= and MemoryDenyWriteExecute=."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(FAIL | errno.EPERM))
    denies_writable_code = settings_of(unit, "MemoryDenyWriteExecute") == ["yes"]
    conditional = {"mmap", "mprotect", "pkey_mprotect", "shmat"} if denies_writable_code else set()
    for name in allowed_calls(unit) - conditional:
        _allow(library, context, name)
    if denies_writable_code:  # an allowed mapping is not writable, or it is not executable
        _allow(library, context, "mmap", Comparison(2, MASKED_EQUAL, PROT_WRITE, 0))
        _allow(library, context, "mmap", Comparison(2, MASKED_EQUAL, PROT_EXEC | PROT_WRITE, PROT_WRITE))
        _allow(library, context, "mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, 0))
        _allow(library, context, "pkey_mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, 0))
        _allow(library, context, "shmat", Comparison(2, MASKED_EQUAL, SHM_EXEC, 0))
    if library.seccomp_load(context) != 0:
        raise OSError("the filter cannot be loaded")


def _allow(library: ctypes.CDLL, context: ctypes.c_void_p, name: str, *comparisons: Comparison) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:  # else this machine does not know it
        array = (Comparison * len(comparisons))(*comparisons)
        if library.seccomp_rule_add_array(context, ALLOW, number, len(comparisons), array) != 0:
            raise OSError(f"{name} cannot be allowed")


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])

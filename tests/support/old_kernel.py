#!/usr/bin/env python3
"""Runs a program as if io_uring were older than it is: a seccomp filter answers some of its calls with EINVAL, as a
kernel does that does not know them. What the program starts inherits it.

  old_kernel.py --refuse setup|register:OPCODE ... -- PROGRAM ARGUMENT...

register:8 (the probe of opcodes) hides all that is tried for and not required. scripts/vm runs real old kernels;
this one is for every test run.
"""
import ctypes
import errno
import os
import struct
import sys

SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER = 425, 427
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/filter.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
OFFSET_CALL, OFFSET_SECOND_ARGUMENT = 0, 24  # struct seccomp_data
REFUSE = struct.pack("HBBI", RETURN, 0, 0, 0x00050000 | errno.EINVAL)  # SECCOMP_RET_ERRNO
ALLOW = struct.pack("HBBI", RETURN, 0, 0, 0x7fff0000)  # SECCOMP_RET_ALLOW
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def rule(refused):
    """The instructions that refuse one call, and otherwise fall through."""
    call, _, opcode = refused.partition(":")
    load = struct.pack("HBBI", LOAD, 0, 0, OFFSET_CALL)
    if call == "setup":
        return [load, struct.pack("HBBI", JUMP_EQUAL, 0, 1, SYS_IO_URING_SETUP), REFUSE]
    if call == "register":
        return [load, struct.pack("HBBI", JUMP_EQUAL, 0, 3, SYS_IO_URING_REGISTER),
                struct.pack("HBBI", LOAD, 0, 0, OFFSET_SECOND_ARGUMENT),
                struct.pack("HBBI", JUMP_EQUAL, 0, 1, int(opcode)), REFUSE]
    raise SystemExit(f"old_kernel.py: what is {refused}?")


def install(program):
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def main():
    end = sys.argv.index("--")
    given = [argument for argument in sys.argv[1:end] if argument != "--refuse"]
    install([instruction for refused in given for instruction in rule(refused)] + [ALLOW])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1:])


if __name__ == "__main__":
    main()

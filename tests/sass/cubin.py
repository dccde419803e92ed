"""Reads one kernel out of a cubin: its instructions by nvdisasm, and where its parameters and constants go.

The ELF sections' content is laid out as `cuobjdump -elf` shows it.
"""

import re
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

from sass.fault import Fault

STEP = 16  # bytes an instruction
# Attributes of a .nv.info section: cuobjdump's names and their numbers.
EIATTR_PARAM_CBANK, EIATTR_KPARAM_INFO = 0x0A, 0x17
EIFMT_SVAL = 4  # a size, and as many bytes


class Instruction(NamedTuple):
    guard: str  # "" or a predicate, with its "!"
    opcode: str  # without its modifiers
    flags: tuple[str, ...]  # the modifiers
    operands: tuple[str, ...]

    @classmethod
    def of(cls, text):
        """From what nvdisasm prints: "@!P0 IADD3.X R1, R2, R3, RZ, P1, !PT"."""
        match = re.fullmatch(r"(?:@(!?U?P[\dT]+)\s+)?([\w.]+)\s*(.*?)\s*;?", text.strip())
        if match is None:
            raise Fault(f"no instruction: {text!r}")
        guard, name, operands = match.groups()
        opcode, *flags = name.split(".")
        parts = [part.strip().replace(".reuse", "") for part in operands.split(",")] if operands else []
        return cls(guard or "", opcode, tuple(flags), tuple(parts))

    def __str__(self):
        guard = f"@{self.guard} " if self.guard else ""
        return f"{guard}{'.'.join((self.opcode, *self.flags))} {', '.join(self.operands)}".rstrip()


class Kernel(NamedTuple):
    name: str
    code: tuple[Instruction, ...]
    param_base: int  # in constant bank 0
    params: tuple[tuple[int, int], ...]  # offset from there and size, in bytes, of each
    shared: int  # bytes, static, the system's first KiB among them
    constants: dict[int, bytes]  # other banks

    @classmethod
    def read(cls, cubin, name, nvdisasm):
        sections = _sections(Path(cubin).read_bytes())
        if f".text.{name}" not in sections:
            raise Fault(f"{cubin} has no kernel {name}")
        code = _listing(cubin, name, nvdisasm)
        base, params = None, {}
        for attribute, value in _info(sections[f".nv.info.{name}"][0]):
            if attribute == EIATTR_PARAM_CBANK:
                base, _ = struct.unpack("<4xHH", value)
            elif attribute == EIATTR_KPARAM_INFO:
                _, ordinal, offset, size = struct.unpack("<IHHI", value)
                params[ordinal] = offset, size >> 18
        shared = sections.get(f".nv.shared.{name}", (b"", 0))[1]
        banks = ((re.fullmatch(rf"\.nv\.constant(\d+)(\.{name})?", s), data) for s, (data, _) in sections.items())
        constants = {int(match[1]): data for match, data in banks if match and match[1] != "0"}
        return cls(name, code, base, tuple(params[k] for k in sorted(params)), shared, constants)


def _listing(cubin, name, nvdisasm):
    """The section's instructions: the kernel's, and those of functions that it calls. Labels become addresses."""
    run = subprocess.run([nvdisasm, "-c", cubin], check=True, capture_output=True, text=True)
    lines, labels = [], {}
    section = re.split(r"\n\s*\.section\s+", run.stdout)
    (text,) = (part for part in section if part.startswith(f".text.{name},"))
    for line in text.splitlines()[1:]:
        if match := re.fullmatch(r"\s*/\*([0-9a-f]+)\*/\s*(.*?);\s*", line):
            if int(match[1], 16) != STEP * len(lines):
                raise Fault(f"{name} has no instruction before {line.strip()!r}")
            lines.append(match[2])
        elif match := re.fullmatch(r"([^\s:]+):", line):
            labels[match[1]] = hex(STEP * len(lines))
    return tuple(Instruction.of(re.sub(r"`\((.*?)\)", lambda m: labels[m[1]], line)) for line in lines)


def _sections(elf):
    """By name: content (empty where the file has none), size. ELF64, little-endian."""
    table, entry, count, names = struct.unpack_from("<Q10xHHH", elf, 0x28)
    headers = [struct.unpack_from("<II16xQQ", elf, table + i * entry) for i in range(count)]
    strings = headers[names][2]
    nobits = 8
    return {
        elf[strings + name : elf.index(b"\0", strings + name)].decode(): (
            b"" if kind == nobits else elf[offset : offset + size],
            size,
        )
        for name, kind, offset, size in headers
    }


def _info(data):
    """(attribute, value) of those with a value of bytes."""
    at = 0
    while at < len(data):
        kind, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if kind == EIFMT_SVAL:
            yield attribute, data[at : at + size]
            at += size

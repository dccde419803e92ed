"""The table of opcodes: the files beside this one enter theirs, `decode` looks them up."""

from sass.fault import Fault

_TABLE = {}


def opcode(*names, flags=""):
    """Enters a decoder: instruction -> run(warp, active). `flags`: the modifiers it knows; all others are refused."""

    def enter(decoder):
        for name in names:
            _TABLE[name] = decoder, set(flags.split())
        return decoder

    return enter


def decode(instruction):
    """run(warp, active) -> None: on to the next; or {address: lanes}, where the active lanes go instead."""
    if instruction.opcode not in _TABLE:
        raise Fault(f"unknown opcode {instruction.opcode} in `{instruction}`")
    decoder, flags = _TABLE[instruction.opcode]
    for flag in instruction.flags:
        if flag not in flags:
            raise Fault(f"unknown modifier .{flag} in `{instruction}`")
    try:
        return decoder(instruction)
    except (Fault, ValueError, KeyError, IndexError) as error:
        raise Fault(f"cannot decode `{instruction}`: {error}") from error

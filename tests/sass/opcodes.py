"""The table of opcodes: the files beside this one enter theirs, `decode` looks them up."""

from sass.fault import Fault

_TABLE = {}


def opcode(*names, flags="", acts=False):
    """Enters a decoder: instruction -> run(warp, active). `flags`: the modifiers it knows; all others are refused.

    run answers None: on to the next; or {address: lanes}, where the active lanes go instead.
    acts: undefined sources are a fault, since what it does with them reaches beyond registers.
    """

    def enter(decoder):
        for name in names:
            _TABLE[name] = decoder, set(flags.split()), acts
        return decoder

    return enter


def decode(instruction):
    """(run, acts)."""
    if instruction.opcode not in _TABLE:
        raise Fault(f"unknown opcode {instruction.opcode} in `{instruction}`")
    decoder, flags, acts = _TABLE[instruction.opcode]
    for flag in instruction.flags:
        if flag not in flags:
            raise Fault(f"unknown modifier .{flag} in `{instruction}`")
    try:
        return decoder(instruction), acts
    except (Fault, ValueError, KeyError, IndexError, StopIteration) as error:
        raise Fault(f"cannot decode `{instruction}`: {error}") from error

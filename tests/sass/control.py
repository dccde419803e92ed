"""Opcodes that say where the lanes go on: branches, exits, and waiting for one another."""

from sass.cubin import STEP
from sass.opcodes import opcode
from sass.operands import ALL, NUMBER, dest, lanes_of, only, predicate, predicate_dest, source


def barrier(text):
    """The number of a convergence barrier."""
    if text[0] != "B":
        raise ValueError(f"{text!r} is no barrier")
    return int(text[1:])


@opcode("BRA", flags="U DIV", acts=True)
def bra(i):
    """DIV: where the active lanes are not those of a mask."""
    *conditions, target = i.operands
    if "DIV" in i.flags:
        (masks,) = map(source, conditions)
        return lambda warp, active: None if same(masks(warp, active), active) == active else {int(target, 0): active}
    where, tests = int(target, 0), [predicate(p) for p in conditions]

    def run(warp, active):
        lanes = active
        for test in tests:
            lanes &= test(warp, active)
        stay = active & ~lanes
        return {where: lanes} | ({warp.pc + STEP: stay} if stay else {}) if lanes else None

    return run


def same(values, active):
    """What all active lanes have."""
    return int(only(values if values.size == 1 else values[lanes_of(active)])[0])


@opcode("CALL", flags="REL NOINC")
def call(i):
    (target,) = i.operands  # the way back was put into registers before
    return lambda warp, active: {int(target, 0): active}


@opcode("RET", flags="REL NODEC", acts=True)
def ret(i):
    register, base = i.operands[0].split()
    back = source(register)

    def run(warp, active):
        at = {}
        for lane, address in enumerate(back(warp, active).tolist()):
            if active >> lane & 1:
                at[address + int(base, 0)] = at.get(address + int(base, 0), 0) | 1 << lane
        return at

    return run


@opcode("EXIT")
def leave(i):
    def run(warp, active):
        warp.alive &= ~active
        warp.settle()
        return {}

    return run


@opcode("BSSY", flags="RECONVERGENT RELIABLE")
def begin_convergence(i):
    """The active lanes will meet at a BSYNC of this barrier (where is said, and not needed)."""
    name, _ = i.operands
    n = barrier(name)

    def run(warp, active):
        for lane in range(32):
            if active >> lane & 1:
                warp.partners[n][lane] = active

    return run


@opcode("BREAK", flags="RELIABLE", acts=True)
def leave_convergence(i):
    *conditions, name = i.operands
    n, tests = barrier(name), [predicate(p) for p in conditions]

    def run(warp, active):
        for test in tests:
            active &= test(warp, active)
        warp.partners[n] = [partners & ~active for partners in warp.partners[n]]
        warp.settle()

    return run


@opcode("BSYNC", flags="RECONVERGENT RELIABLE")
def converge(i):
    (name,) = i.operands
    n = barrier(name)

    def run(warp, active):
        warp.wait(("BSYNC", n), active)
        return {}

    return run


@opcode("WARPSYNC", flags="ALL COLLECTIVE", acts=True)
def warp_sync(i):
    """Waits for the lanes of a mask. COLLECTIVE, up to ENDCOLLECTIVE: out of line, after a BRA.DIV."""
    masks = source(i.operands[0]) if i.operands else None

    def run(warp, active):
        wanted = ALL if masks is None else same(masks(warp, active), active)
        warp.wait(("WARPSYNC", wanted), active)
        return {}

    return run


@opcode("BAR", flags="SYNC RED OR AND POPC DEFER_BLOCKING", acts=True)
def block_barrier(i):
    """All threads of the block that are left. RED: their predicates, combined, for B2R."""
    number, *conditions = i.operands
    if not NUMBER.fullmatch(number) or bool(conditions) != ("RED" in i.flags):
        raise ValueError("only a barrier of the whole block, by its number; RED with one predicate")
    how = next((flag for flag in ("OR", "AND", "POPC") if flag in i.flags), None)
    tests = [predicate(p) for p in conditions]

    def run(warp, active):
        ayes = tests[0](warp, active) & active if tests else 0
        warp.block.vote(int(number, 0), how, ayes, active)
        warp.wait(("BAR", int(number, 0)), active)
        return {}

    return run


@opcode("B2R", flags="RESULT")
def barrier_result(i):
    target, *verdict = i.operands
    write, tell = dest(target), [predicate_dest(p) for p in verdict]

    def run(warp, active):
        result = warp.block.result
        write(warp, active, result)
        for p in tell:
            p(warp, active, ALL if result else 0)

    return run

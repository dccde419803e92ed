"""An interpreter of compiled GPU kernels (SASS for sm_90), so that a wrong one is caught where there is no GPU.

    machine = Machine(Kernel.read("k.cubin", "search_plain", nvdisasm="nvdisasm"))
    memory, found = Memory(), np.zeros(8, np.uint64)
    machine.launch(1, 64, [scan, ..., ctypes.c_uint64(memory.place(found))], memory)

`cubin.py` reads the kernel, `operands.py` and the files of opcodes turn each instruction into a function once, and
`machine.py` runs these for all lanes of a warp at a time. Warps take turns at random, memory is sequentially
consistent: this finds wrong results, lost updates and bad addresses, not what a weaker memory order would add.
What it does not know, it refuses: opcodes, modifiers, addresses outside all buffers, registers never written.

Source of the semantics: NVIDIA documents the opcodes' names only (CUDA Binary Utilities, "Hopper Instruction Set");
the rest follows from the PTX ISA's instructions that they come from, and tests/test_sass_machine.py holds each
against arithmetic of its own.
"""

from sass.cubin import Instruction, Kernel
from sass.fault import Fault
from sass.machine import Machine
from sass.memory import Memory

__all__ = ["Fault", "Instruction", "Kernel", "Machine", "Memory"]

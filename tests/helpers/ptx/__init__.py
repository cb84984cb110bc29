"""A simulator of compiled GPU code, small enough to read: PTX for sm_80, written from NVIDIA's "PTX ISA".

``parse`` (text to instructions), ``machine`` (threads, registers, control flow), ``arithmetic``,
``conversions``, ``traffic`` and ``warps`` (what instructions do), ``memory`` (bounds, alignment, races),
``launch`` (compile a Triton kernel and run it).
"""

"""What runs inside a step: pointers, shapes, strides. No autograd, no trainer, no file input or output.

The folder ``kernels/`` is installed as the package ``fastgan.kernels``.
"""

"""Fused kernels for CUDA devices, written in Triton, as operators of ``torch.library``.

`ops` is what the rest of the package calls and all that is imported with it; it imports `launch`, and that the kernels
themselves, when one first runs: without Triton, and without a GPU, nothing here costs or breaks anything.
"""

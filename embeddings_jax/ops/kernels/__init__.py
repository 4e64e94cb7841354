"""Kernels: operations with a hand-written forward or backward pass, each behind its plain form in `reference.py`.

They differ from the reference in speed, memory and rounding alone; `tests/ops/kernels/test_reference.py` compares
values and gradients. `ops/chunks.py` and `nets/transformer.py` have one more backward pass each, about loops.
"""

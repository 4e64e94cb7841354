"""Compiles programs for machines that are not there, and reads what the compiler made of them.

`programs.py` compiles the training loop's own programs on stand-in data, `hlo.py` reads the compiled text,
`arithmetic.py` counts the products that the traced program asks for, `chips.py` has the published figures of chips,
and `report.py` puts them together.
"""

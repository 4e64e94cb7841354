"""Readers of data files and valid files for them."""
import struct

from harness import Reader, reader_of_files

from embeddings_jax.data import formats

READERS: list[Reader] = [
    reader_of_files("idx", {"a.idx": b"\0\0\x08\x02" + struct.pack(">2I", 2, 3) + bytes(range(6)),
                            "b.idx": b"\0\0\x0d\x01" + struct.pack(">I2f", 2, 1, 2)}, formats.read_idx),
]

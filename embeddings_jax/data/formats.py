"""The readers of file formats in one place; see `data/files/`."""
from embeddings_jax.data.files.arrays import load_npy, load_npz, parse_npy, read_idx, read_npy, read_rows
from embeddings_jax.data.files.dialects import TableOptions, csv_rows, is_number
from embeddings_jax.data.files.streams import (
           checked_file,
           opened,
           quoted,
           read_lines,
           sha256,
           tar_members,
           text_lines,
)
from embeddings_jax.data.files.tables import Table, read_csv
from embeddings_jax.data.files.wav import read_sound, read_wav

__all__ = ["Table", "TableOptions", "checked_file", "csv_rows", "is_number", "load_npy", "load_npz", "opened",
           "parse_npy", "quoted", "read_csv", "read_idx", "read_lines", "read_npy", "read_rows", "read_sound",
           "read_wav", "sha256", "tar_members", "text_lines"]

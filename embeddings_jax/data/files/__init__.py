"""Readers of file formats, guarded against damaged and hostile files, and safe writing."""

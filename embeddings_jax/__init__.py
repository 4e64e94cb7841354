"""Embeddings learnt without labels: pure-function models, one training loop, honest evaluations."""
from embeddings_jax.data.sources import array_source, reader_source, window_source
from embeddings_jax.gradient import gradient_model
from embeddings_jax.train.loop import train
from embeddings_jax.types import Model, Source

__all__ = ["Model", "Source", "array_source", "gradient_model", "reader_source", "train", "window_source"]

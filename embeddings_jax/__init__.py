"""Embeddings learnt without labels: pure-function models, one training loop, honest evaluations."""

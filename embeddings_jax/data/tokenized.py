"""Corpora as subword tokens, for the pipelines that read them."""
from typing import Any, NamedTuple

import numpy as np

from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.subwords import SubwordEncoder, without_special
from embeddings_jax.data.files.tokenizer import load_tokenizer
from embeddings_jax.data.sentences import TokenTexts, tokenize_documents
from embeddings_jax.data.tokenizer_training import trained_tokenizer
from embeddings_jax.types import InputError

FACTS = {"vocab_size": "Number of tokens", "counts": "Occurrences of each token",
         "cls_id": "Token that stands for a text", "sep_id": "Token that ends a sentence",
         "mask_id": "Token of masked positions", "pad_id": "Token of padding", "end_id": "Token that ends a text",
         "unk_id": "Token of what is unknown", "special_ids": "Tokens that are no text",
         "continues": "Tokens that continue a word",
         "num_raw_words": "Words of the text", "num_tokens": "Tokens of the text",
         "num_documents": "Number of documents", "padding_fraction": "Fraction of tokens that is padding"}


def subword_encoder(dataset: Dataset, *, max_length: int, encoder: SubwordEncoder | None = None, tokenizer: str = "",
                    model: str = "wordpiece", vocab_size: int = 4000, lowercase: bool = True,
                    cache_dir: str | None = None) -> SubwordEncoder:
  """Returns an encoder with the tokenizer of `encoder`, else that of a file, else one trained on the dataset."""
  if encoder is not None:
    return SubwordEncoder(encoder.tokenizer, max_length)
  if tokenizer:
    return SubwordEncoder(load_tokenizer(tokenizer, lowercase), max_length)
  return SubwordEncoder(trained_tokenizer(dataset, model=model, vocab_size=vocab_size, lowercase=lowercase,
                                          cache_dir=cache_dir), max_length)


class TokenizedCorpus(NamedTuple):
  """Tokens of a text.

  Attributes:
    encoder: Encodes further text.
    facts: Of the tokens and of the training documents.
    train: Training documents.
    validation: Held-out documents, if any.
    dataset: The text; its fingerprint depends on a tokenizer from a file as well.
  """

  encoder: SubwordEncoder
  facts: dict[str, Any]
  train: TokenTexts
  validation: TokenTexts | None
  dataset: Dataset


def tokenize(dataset: Dataset, *, unit: str, what: str, needs: tuple[str, ...] = (), special: bool = True,
             tokenizer: str = "", cache_dir: str | None = None, **options: Any) -> TokenizedCorpus:
  """Tokenizes a text.

  Args:
    dataset: Text.
    unit: `document` or `sentence`, which is a line where the dataset has a sentence a line.
    what: Name of what is made of the tokens, for errors.
    needs: Roles of special tokens that are needed.
    special: Whether the encoder puts special tokens around texts.
    tokenizer: File of a tokenizer; "" trains one.
    cache_dir: Directory of derived data.
    **options: Those of `subword_encoder`.

  Raises:
    InputError: The tokenizer lacks a special token.
  """
  encoder = subword_encoder(dataset, tokenizer=tokenizer, cache_dir=cache_dir, **options)
  encoder = encoder if special else without_special(encoder)
  facts = encoder.facts
  if missing := [role for role in needs if f"{role}_id" not in facts]:
    raise InputError(f"tokenizer={tokenizer}: has no [{missing[0].upper()}]; {what} need "
                     + " and ".join(f"[{role.upper()}]" for role in needs))
  unit = "line" if unit == "sentence" and dataset.lines else unit
  corpus = tokenize_documents(dataset, encoder, unit=unit, cache_dir=cache_dir)
  facts |= {"num_raw_words": corpus.num_raw_words, "num_tokens": len(corpus.train.tokens),
            "num_documents": len(corpus.train.documents) - 1,
            "counts": np.bincount(corpus.train.tokens, minlength=facts["vocab_size"])}
  if (continues := encoder.continues) is not None:
    facts["continues"] = continues
  if tokenizer:  # A file, which determines the trained parameters as well.
    dataset = dataset._replace(fingerprint=digest(dataset.fingerprint, encoder.fingerprint))
  return TokenizedCorpus(encoder, facts, corpus.train, corpus.validation, dataset)


def with_padding(facts: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
  """Returns the facts with the fraction of the rows that is padding."""
  return {**facts, "padding_fraction": round(float((rows < 0).mean()), 4)}

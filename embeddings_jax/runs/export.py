"""Writes what a run has learned for other programs.

Networks: `huggingface`, a directory that `transformers` loads with its tokenizer or image processor, and
sentence-transformers with its pooling, where that gives the run's vectors. Word vectors: the formats of
`interop/word_vectors.py`.
"""
import os
from collections.abc import Callable

import numpy as np
from etils import epath

from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.interop import huggingface, huggingface_bart, huggingface_vision, word_vectors
from embeddings_jax.runs import pretrained, vectors
from embeddings_jax.runs.run import Run

FORMATS = (*word_vectors.FORMATS, "huggingface")


def export(run: Run, output: str | os.PathLike, format: str, *,
           report: Callable[[str], None] = lambda line: None) -> str:
  """Writes word vectors or a network.

  Args:
    run: A loaded run.
    output: File to write, compressed if its name ends in .gz; of `huggingface` a new directory.
    format: One of `FORMATS`.
    report: Receives a line about what the format cannot hold.

  Returns:
    What was written, in words.

  Raises:
    InputError: The format has no place for what the run has learned, or `output` exists.
  """
  check_choice("format", format, FORMATS)
  if format == "huggingface":
    return _export_network(run, output, report)
  if run.encoder.names is None:
    raise InputError(f"format={format}: {run.config['name']} learns no vectors of words")
  found = vectors.of_run(run)
  word_vectors.write(output, found.words, found.vectors, format)
  return f"{found.vectors.shape[0]} words x {found.vectors.shape[1]}"


def _export_network(run: Run, output: str | os.PathLike, report: Callable[[str], None]) -> str:
  folder = epath.Path(output)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise InputError(f"output={output}: exists already; give a new directory")
  found = pretrained.load(str(run.path)) if run.path and not run.prepared else pretrained.of_run(run)
  if found and found.name == "mae":
    huggingface_vision.write(output, found.hyper, found.others, found.params, found.encoder.shape)
  elif found and found.model == "sequence_autoencoder" and not huggingface_bart.cannot(found.hyper, found.others):
    files = huggingface.tokenizer_files(found.encoder.files()["tokenizer.json"], found.encoder.max_length)
    facts = found.encoder.facts
    ids = {"bos_token_id": facts.get("cls_id"), "eos_token_id": facts["sep_id"], "pad_token_id": facts.get("pad_id")}
    huggingface_bart.write(output, found.hyper, found.others, found.params, files, ids)
    return "bart"
  elif found and hasattr(found.encoder, "tokenizer"):
    files = huggingface.tokenizer_files(found.encoder.files()["tokenizer.json"], found.encoder.max_length)
    files |= _sentence_files(found, run, lambda line: report(f"{output}: {line}"))
    huggingface.write(output, found.name, found.hyper, found.params, files)
  else:
    raise InputError(f"format=huggingface: there is no place for {run.config['name']}; bert, gpt and mae have one")
  return found.name


def _sentence_files(found: pretrained.Pretrained, run: Run, report: Callable[[str], None]) -> dict[str, bytes]:
  """Returns the files by which sentence-transformers gives the run's vectors; none, and a line, if it cannot."""
  texts = [found.encoder.decode([i]) or "a" for i in range(min(found.encoder.facts["vocab_size"], 64))] + ["a b c d"]
  try:
    files = huggingface.sentence_files(found.pooling or "mean", found.hyper["dim"], found.encoder.max_length,
                                       found.normalize)
    ours, theirs = (each.embed(texts, normalize=False) for each in (run, pretrained.as_run(found)))
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-4 * np.abs(ours).max()):
      raise InputError("the run's vectors are more than the pooled ones of its network")
  except InputError as error:
    report(f"modules.json and 1_Pooling are left out: {error}")
    return {}
  return files

"""Writes what a run has learned for other programs.

Networks: `huggingface`, a directory that `transformers` loads with its tokenizer or image processor, and
sentence-transformers with its pooling, where that gives the run's vectors. Word vectors: the formats of
`interop/word_vectors.py`. Words, documents or other rows: `faiss`, an index for nearest neighbors.
"""
import os
from collections.abc import Callable

import numpy as np
from etils import epath

from embeddings_jax.errors import InputError, check_choice
from embeddings_jax.interop import faiss_index, huggingface, huggingface_bart, huggingface_vision, word_vectors
from embeddings_jax.runs import explore, pretrained, vectors
from embeddings_jax.runs.run import Run

FORMATS = (*word_vectors.FORMATS, "faiss", "huggingface")


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
  if format == "faiss":
    points = explore.of_run(run)
    faiss_index.write_index(output, points.names, points.vectors)
    return f"{points.vectors.shape[0]} rows x {points.vectors.shape[1]}"
  if run.encoder.names is None:
    raise InputError(f"format={format}: {run.config['name']} learns no vectors of words")
  table = vectors.of_run(run)
  word_vectors.write(output, table.words, table.vectors, format)
  return f"{table.vectors.shape[0]} words x {table.vectors.shape[1]}"


def _export_network(run: Run, output: str | os.PathLike, report: Callable[[str], None]) -> str:
  folder = epath.Path(output)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise InputError(f"output={output}: exists already; give a new directory")
  network = pretrained.load(str(run.path)) if run.path and not run.prepared else pretrained.of_run(run)
  if network and network.name == "mae":
    huggingface_vision.write(output, network.hyper, network.others, network.params, network.encoder.shape)
  elif (network and network.model == "sequence_autoencoder"
        and not huggingface_bart.cannot(network.hyper, network.others)):
    files = huggingface.tokenizer_files(network.encoder.files()["tokenizer.json"], network.encoder.max_length)
    facts = network.encoder.facts
    ids = {"bos_token_id": facts.get("cls_id"), "eos_token_id": facts["sep_id"], "pad_token_id": facts.get("pad_id")}
    huggingface_bart.write(output, network.hyper, network.others, network.params, files, ids)
    return "bart"
  elif network and hasattr(network.encoder, "tokenizer"):
    files = huggingface.tokenizer_files(network.encoder.files()["tokenizer.json"], network.encoder.max_length)
    files |= _sentence_files(network, run, lambda line: report(f"{output}: {line}"))
    huggingface.write(output, network.name, network.hyper, network.params, files)
  else:
    raise InputError(f"format=huggingface: there is no place for {run.config['name']}; bert, gpt, mae and "
                     "sequence_autoencoder have one")
  return network.name


def _sentence_files(model: pretrained.Pretrained, run: Run, report: Callable[[str], None]) -> dict[str, bytes]:
  """Returns the files by which sentence-transformers gives the run's vectors; none, and a line, if it cannot."""
  texts = [model.encoder.decode([i]) or "a" for i in range(min(model.encoder.facts["vocab_size"], 64))] + ["a b c d"]
  try:
    files = huggingface.sentence_files(model.pooling or "mean", model.hyper["dim"], model.encoder.max_length,
                                       model.normalize)
    ours, theirs = (each.embed(texts, normalize=False) for each in (run, pretrained.as_run(model)))
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-4 * np.abs(ours).max()):
      raise InputError("the run's vectors are more than the pooled ones of its network")
  except InputError as error:
    report(f"modules.json and 1_Pooling are left out: {error}")
    return {}
  return files

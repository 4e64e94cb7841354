"""Examples of a task to fine-tune for."""
from typing import Any

import numpy as np

from embeddings_jax.data import reading, stand_ins, tasks, tokenized
from embeddings_jax.data.cache import digest
from embeddings_jax.data.dataset import Dataset
from embeddings_jax.data.encoders.base import Encoder
from embeddings_jax.data.encoders.bytes import ByteEncoder
from embeddings_jax.data.encoders.images import ImageEncoder
from embeddings_jax.data.encoders.waveforms import WaveformEncoder
from embeddings_jax.errors import check_choice
from embeddings_jax.types import Prepared

ACCEPTS = ("rows", "images", "text", "audio", "bags", "matrix", "pairs", "triples", "choices", "questions", "words")
READ = reading.examples
UNIT = "examples"
FACTS = tokenized.FACTS | {"task": "Kind of the task", "num_classes": "Number of classes",
                           "score_range": "Least and greatest training score", "rate": "Samples of a second"}


def task(dataset: Dataset, *, batch_size: int, seed: int, encoder: Encoder | None = None,
         cache_dir: str | None = None, label: str = "", max_examples: int = 0, max_train: int = 0,
         max_length: int = 0, stride: int = 0, unit: str = "subwords", tokenizer: str = "", model: str = "wordpiece",
         vocab_size: int = 4000, lowercase: bool = True) -> Prepared:
  """Makes batches of encoded examples; the dataset for evaluations is the test split, without one `dev`.

  Args:
    dataset: Labeled examples.
    batch_size: Examples of a batch.
    seed: Random seed of the data order.
    encoder: Pretrained encoder.
    cache_dir: Directory of derived data.
    label: Label to predict; "": the only one.
    max_examples, max_train: Limits of every split and of the training split; 0: none. See `tasks.as_task`.
    max_length: Tokens, bytes or samples of an example.
    stride: Tokens between the windows of a long text.
    unit: What text is made of: `subwords` or `bytes`.
    tokenizer, model, vocab_size, lowercase: Options of the tokenizer; see `subword_pairs`.
  """
  check_choice("unit", unit, ("subwords", "bytes"))
  examples = tasks.as_task(dataset, label, max_examples, max_train, seed)
  texts = examples.texts
  kind = dataset.kind if dataset.kind in ("audio", "images", "rows") else "text"
  view = Dataset(examples.name, kind, texts, dataset.rate, fingerprint=examples.fingerprint)
  if encoder is not None:
    encoder = encoder.for_task(max_length)
  elif kind == "images":
    encoder = ImageEncoder(*texts.shape[1:])
  elif kind == "audio":
    encoder = WaveformEncoder(dataset.rate, max_length)
  elif unit == "bytes":
    encoder = ByteEncoder(max_length)
  else:
    train = examples.parts["train"]
    pieces = [piece for i in train for piece in ([texts[i]] if isinstance(texts[i], str) else texts[i])]
    encoder = tokenized.subword_encoder(
        view._replace(items=pieces), tokenizer=tokenizer, model=model, vocab_size=vocab_size, lowercase=lowercase,
        max_length=max_length, cache_dir=cache_dir).for_task(max_length)
  encoded = tasks.encode_task(examples, encoder, stride=stride, cache_dir=cache_dir)
  source = tasks.task_source(examples, encoded, encoder, batch_size, seed=seed)
  rows = examples.parts.get("test", examples.parts["dev"])
  classes = np.array(examples.labels)[examples.targets[rows]] if examples.kind == "classification" else None
  shown = view._replace(items=[texts[i] for i in rows], labels={} if classes is None else {"class": classes},
                        fingerprint=digest(examples.fingerprint, encoder.fingerprint))
  return Prepared({"train": source}, encoder, shown, source.facts, examples._replace(encoded=encoded))


def stand_in(item: stand_ins.Item, *, batch_size: int, unit: str = "subwords", model: str = "wordpiece",
             vocab_size: int = 4000, max_length: int = 0, image_size: int = 0, channels: int = 0,
             **_: Any) -> stand_ins.StandIn:
  """Returns facts and batch shapes of a classification; see `stand_ins`."""
  facts = {"task": "classification", "num_classes": 2}
  if item.kind in ("rows", "images") or not max_length:  # Images have no length.
    inputs = {"image": (np.uint8, *stand_ins.image_shape(item, image_size, channels))}
  elif item.kind == "audio" or unit == "bytes":
    inputs = {"signal": (np.int16 if item.kind == "audio" else np.uint8, max_length), "length": (np.int32,)}
  else:
    inputs = {"tokens": (np.int32, max_length), "segments": (np.int32, max_length)}
    facts |= stand_ins.subword_facts(model, vocab_size)
  prepared = stand_ins.stand_in(facts, batch_size, **inputs)
  targets = {"label": stand_ins.spec(np.int32, batch_size)}
  mask = prepared.batch.pop("mask")
  return prepared._replace(batch={"inputs": prepared.batch, "targets": targets, "mask": mask})

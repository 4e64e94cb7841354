"""Spectral embedding: `--config_file=tests/extension/spectral.py --data=EDGES --config.data.labels=FILE`."""


def get_config(preset="tiny"):
  return dict(name="spectral", model=dict(dim=2), pipeline="graph", steps=2, log_every=1,
              evals=("node_probe",))

"""The catalog's datasets, one module per kind, each with its table `DATASETS`: name -> `Entry`."""

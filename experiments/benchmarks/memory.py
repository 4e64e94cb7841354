"""Peak memory of a process."""


def anonymous() -> float:
  """RssAnon, MiB: resident memory but for the pages of mapped files, which are the system's to drop (Linux)."""
  with open("/proc/self/status") as file:
    return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

"""Ray: the driver, its workers, and the checks before a run."""

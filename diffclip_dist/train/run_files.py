"""Names of the files in a pretraining run's folder."""

from typing import Final

CONFIG_FILE: Final = "config.yaml"  # the run's settings
METRICS_FILE: Final = "metrics.jsonl"  # a line for each logged step
FAULTS_FILE: Final = "faults.log"  # a line for each fault
STOPPED_FILE: Final = "stopped.txt"  # why the run cannot go on

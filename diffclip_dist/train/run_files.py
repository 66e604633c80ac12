"""Names of the files in a pretraining run's folder."""

from typing import Final

CONFIG_FILE: Final = "config.yaml"  # the run's settings
METRICS_FILE: Final = "metrics.jsonl"  # a line for each logged step
FAULTS_FILE: Final = "faults.log"  # a line for each fault
STOPPED_FILE: Final = "stopped.txt"  # why the run cannot go on
PROBE_FILE: Final = "probe.json"  # what the run is probed on, and the figures to compare with
REPORT_FILE: Final = "report.html"  # the run on one page
LOGS_FOLDER: Final = "logs"  # what each rank did, and the traceback of what it raised

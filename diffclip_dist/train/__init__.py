"""Pretraining: DeepSpeed engines under Ray Train."""

import os

from shards.build.parallel import LOOPBACK_ONLY

# Ray reads this when it is imported: a run that starts a Ray of its own keeps to loopback, one on a cluster may not
if "RAY_ADDRESS" not in os.environ:
    os.environ.update({name: value for name, value in LOOPBACK_ONLY.items() if name not in os.environ})

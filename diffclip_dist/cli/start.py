"""What commands import first: from here on, Ctrl-C ends the process without a traceback.

The handler is set before anything else is imported, since an exception in the middle of an import shows a traceback.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from diffclip_dist.cli.commandline import end_at_once, end_process, run_command  # noqa: E402

signal.signal(signal.SIGINT, end_process)

from diffclip_dist.cli.main import main, script_main  # noqa: E402

__all__ = ["end_at_once", "main", "run_command", "script_main"]

"""The entry point of `prometheus-backup` and of `python -m prometheus_backup`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; exit with its code."""
    # While modules are imported there is nothing to clean up: Ctrl-C just ends the process. Python
    # would show a traceback of the imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from prometheus_backup.cli.main import main as run

    run()


if __name__ == "__main__":
    main()

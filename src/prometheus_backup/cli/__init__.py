"""The command line: the only part that talks to people, and the only place that catches errors.

Start with `main.py`, which runs a command and turns errors and signals into exit codes.
`commands/` has one file for each command; `command.py` adds options, output and monitoring to it.
`context.py` builds what a command needs from the settings. `output.py` prints results;
`progress.py` (terminals) and `logs.py` (log lines) listen to the events of a run, `monitoring.py`
reports its end.
"""

"""Runs one program and reports its usage: `python -I -S stopwatch.py REPORT PROGRAM ARGUMENT...`.

This is a separate, small process, because the kernel counts a program's peak memory from the peak
of the process that started it.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run the program; write wall and CPU seconds and peak bytes of its whole process tree."""
    report, *command = sys.argv[1:]
    started = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - started
    with open(report, "w", encoding="utf-8") as out:  # noqa: PTH123 - importing pathlib needs more memory
        cost = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss << 10}
        json.dump(cost, out)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())

"""Runs the command line on a pseudo-terminal."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.runs import bare_environment, command

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Screen:
    """The output on the terminal; `text` is without colours and cursor movements."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")


def on_terminal(
    *arguments: str, env: Mapping[str, str], columns: int = 120, stdout_too: bool = True
) -> Screen:
    """Run the command line with standard error, and by default also output, on a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        command(*arguments),
        env=bare_environment({"TERM": "xterm-256color", **env}),
        stdin=slave,
        stdout=slave if stdout_too else subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # EIO: the program has closed its end
        while chunk := os.read(master, 65536):
            written += chunk
    os.close(master)
    return Screen(process.wait(60), written.decode())

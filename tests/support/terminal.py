"""The command line on a terminal: a pseudo-terminal that a program takes for a person's."""

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
    """What a program wrote to its terminal; `text` is that without colours and cursor moves."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")


def on_terminal(
    *arguments: str, env: Mapping[str, str], columns: int = 120, stdout_too: bool = True
) -> Screen:
    """Run the command line to its end with standard error, and output too, on a terminal."""
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

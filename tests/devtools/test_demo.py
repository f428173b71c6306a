"""`make demo` works, fits on a screen, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import psutil

from devtools.processes import clean_environment
from tests.support.pages import ROOT


def test_demo_fits_on_a_screen_and_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devtools.demo"],
        cwd=ROOT,
        env=clean_environment(tmp_path / "home"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert sum("every value equal" in line for line in lines) == 3
    # TMPDIR is the home of the environment, so the demo's directory would be there.
    assert list((tmp_path / "home").iterdir()) == []
    left = [p.cmdline() for p in psutil.process_iter() if _mentions(p, tmp_path)]
    assert left == []


def _mentions(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(str(folder) in word for word in process.cmdline()[1:])
    except psutil.Error:
        return False

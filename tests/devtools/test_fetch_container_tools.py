"""Finding kubectl, buildah and debootstrap, which `make test` has fetched."""

import os
import subprocess
from pathlib import Path

import pytest

from devtools import fetch_container_tools
from devtools.fetch_container_tools import ContainerToolMissingError, Program


@pytest.mark.parametrize("name", ["kubectl", "buildah", "debootstrap"])
def test_programs_run_without_being_installed(name: str) -> None:
    program: Program = getattr(fetch_container_tools, f"find_{name}")()
    arguments = ["version", "--client"] if name == "kubectl" else ["--version"]
    done = subprocess.run(
        [str(program.path), *arguments],
        env={**os.environ, **program.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout


def test_kubectl_that_is_too_old_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "kubectl"
    old.write_text("#!/bin/sh\necho Client Version: v1.20.2\n")
    old.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(old))
    with pytest.raises(ContainerToolMissingError, match=r"kubectl 1\.27 or newer: run `make test`"):
        fetch_container_tools.find_kubectl()

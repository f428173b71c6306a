"""Finding the Pushgateway and nginx, which `make test` has fetched."""

from pathlib import Path

import pytest

from devtools import fetch_programs
from devtools.fetch_programs import NGINX, PUSHGATEWAY, DebianProgram, ProgramMissingError

each_program = pytest.mark.parametrize("program", [PUSHGATEWAY, NGINX], ids=lambda p: p.package)


@each_program
def test_configured_program_is_used(
    program: DebianProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = program.find()
    monkeypatch.setattr(fetch_programs, "TOOLS", Path("/nowhere"))
    monkeypatch.setenv(program.variable, str(found))
    assert program.find() == found


@each_program
def test_error_says_how_to_get_it(
    program: DebianProgram, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetch_programs, "TOOLS", tmp_path)
    monkeypatch.delenv(program.variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramMissingError, match=rf"make test.*{program.variable}"):
        program.find()
    with pytest.raises(ProgramMissingError, match="apt-get is missing"):
        program.fetch()

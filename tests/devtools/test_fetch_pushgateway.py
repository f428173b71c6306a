"""Finding the Pushgateway, which `make test` has fetched."""

from pathlib import Path

import pytest

from devtools import fetch_pushgateway
from devtools.fetch_pushgateway import PushgatewayMissingError


def test_configured_program_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fetch_pushgateway.find()
    monkeypatch.setattr(fetch_pushgateway, "TOOLS", Path("/nowhere"))
    monkeypatch.setenv("PUSHGATEWAY", str(found))
    assert fetch_pushgateway.find() == found


def test_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch_pushgateway, "TOOLS", tmp_path)
    monkeypatch.delenv("PUSHGATEWAY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PushgatewayMissingError, match=r"make test.*PUSHGATEWAY"):
        fetch_pushgateway.find()
    with pytest.raises(PushgatewayMissingError, match="apt-get is missing"):
        fetch_pushgateway.fetch()

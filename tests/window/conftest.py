"""Backups to open, one made by each major version of Prometheus."""

from tests.drill.conftest import _drillables, drilling, drilling_3  # noqa: F401 -- fixtures

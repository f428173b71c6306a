"""Every kind of store, empty, on a real server if it needs one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.azurite import Azurite
from devtools.s3 import S3Bucket
from devtools.seaweedfs import SeaweedFS
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.stores.location import open_store, parse_location
from tests.support.memory_store import MemoryStore
from tests.support.s3 import open_s3

KINDS = ("memory", "local", "seaweedfs", "seaweedfs-checksums", "moto", "azurite")


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azure's blob storage."""
    with Azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def _seaweedfs_bucket(seaweedfs: SeaweedFS) -> S3Bucket:
    return seaweedfs.endpoint().new_bucket()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store: a test that uses this runs with every kind."""
    openers: dict[str, Callable[[], ObjectStore]] = {
        "memory": MemoryStore,
        "local": lambda: LocalStore(tmp_path / "repository"),
        "seaweedfs": lambda: open_s3(
            request.getfixturevalue("_seaweedfs_bucket"), prefix=f"contract/{tmp_path.name}"
        ),
        "seaweedfs-checksums": lambda: open_s3(
            request.getfixturevalue("_seaweedfs_bucket"),
            prefix=f"contract/{tmp_path.name}",
            checksum="crc64nvme",
        ),
        "moto": lambda: open_s3(request.getfixturevalue("moto_bucket"), prefix="contract/one"),
        "azurite": lambda: _open_azurite(request),
    }
    return openers[request.param]()


def _open_azurite(request: pytest.FixtureRequest) -> ObjectStore:
    server: Azurite = request.getfixturevalue("azurite")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_store(parse_location(f"az://{server.new_container()}/contract/one"))

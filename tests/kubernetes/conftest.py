"""Builds the real image, and provides a node that runs pods with it."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.buildah import BASE, PINS, Buildah, exclusive_build
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket
from devtools.seaweedfs import SeaweedFS
from tests.support.cluster import Cluster, Image
from tests.support.kustomize import PROMETHEUS, render
from tests.support.pages import ROOT
from tests.support.pod_network import PodNetwork

CONTEXT = ROOT / "infrastructure" / "docker" / "prometheus-backup"
NOBODY = 65534
_REPOSITORY = "localhost/prometheus-backup"


@pytest.fixture(scope="session")
def buildah() -> Buildah:
    """The image store in `.tools`."""
    return Buildah()


@pytest.fixture(scope="session")
def built_image(buildah: Buildah) -> str:
    """The project's image as users build it, but with another base; rebuilt when it changes."""
    tag = f"{_REPOSITORY}:{_hash_of_sources()}"
    with exclusive_build():
        if not buildah.has(tag):
            flags = shlex.join([*buildah.offline(), f"--build-arg=BASE={BASE}"])
            arguments = (f"ENGINE={buildah.program}", f"IMAGE={tag}", f"IMAGE_FLAGS={flags}")
            subprocess.run(["make", "-C", str(ROOT), "image", *arguments], check=True)
            buildah.keep_only(tag)
    return tag


def _hash_of_sources() -> str:
    files = [ROOT / "pyproject.toml", PINS, CONTEXT / "Dockerfile", CONTEXT / "assemble.py"]
    files += sorted((ROOT / "src").rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def image(buildah: Buildah, built_image: str) -> Image:
    """The built image, unpacked. All tests share it and must not change it."""
    inspected = json.loads(buildah.run("inspect", "--type", "image", built_image))
    with exclusive_build():
        return Image((buildah.root(built_image),), inspected["OCIv1"]["config"])


@pytest.fixture
def prometheus_image(buildah: Buildah, tmp_path: Path, prometheus_3: PrometheusBinaries) -> Image:
    """A replacement for the official Prometheus image, with `cp` and Prometheus."""
    programs = tmp_path / "prometheus-image" / "usr" / "bin"
    programs.mkdir(parents=True)
    shutil.copy(prometheus_3.prometheus, programs)
    with exclusive_build():
        return Image((tmp_path / "prometheus-image", buildah.root(BASE)), {"Env": []})


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can access, unlike pytest's temporary folders and maybe TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="prometheus-backup-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> Iterator[S3Bucket]:
    """The bucket that the manifests name."""
    bucket = seaweedfs.endpoint().new_bucket("health-tracker-prometheus-backups")
    yield bucket
    bucket.remove()


@pytest.fixture
def source(
    open_path: Path, prometheus_3: PrometheusBinaries, tsdb_blocks: Path
) -> Iterator[PrometheusServer]:
    """The Prometheus of the cluster, with its own user and volume."""
    programs = open_path / "programs"
    programs.mkdir()
    prometheus, promtool = (
        Path(shutil.copy(program, programs))
        for program in (prometheus_3.prometheus, prometheus_3.promtool)
    )
    own = PrometheusBinaries(prometheus_3.major, prometheus_3.version, prometheus, promtool)
    data = open_path / "claims" / "prometheus-storage-prometheus-0"
    shutil.copytree(tsdb_blocks, data)
    give(data, NOBODY)
    with PrometheusServer(own, data, PrometheusOptions(user=NOBODY)) as server:
        server.fill_head()
        yield server
        server.kill()


def give(folder: Path, user: int) -> None:
    """Make a user the owner of a folder and its contents."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, user, user)


@pytest.fixture
def cluster(
    open_path: Path,
    image: Image,
    prometheus_image: Image,
    source: PrometheusServer,
    bucket: S3Bucket,
) -> Iterator[Cluster]:
    """The namespace with Prometheus, S3, the Secret that users create, and the ConfigMap."""
    services = {
        ("prometheus-0.prometheus", 9090): _port(source.url),
        ("prometheus-k8s-1.prometheus-operated", 9090): _port(source.url),
        ("s3.storage.svc", 8333): _port(bucket.endpoint.url),
    }
    with PodNetwork(services) as network:
        folder = open_path / "node"
        folder.mkdir()
        images = {
            "health-tracker/prometheus-backup:1.0.0": image,
            "prom/prometheus:v3.14.0": prometheus_image,
        }
        cluster = Cluster(folder, images, network)
        cluster.add(render(PROMETHEUS / "backup"))
        cluster.config_maps["prometheus-backup"]["S3_ENDPOINT_URL"] = "http://s3.storage.svc:8333"
        credentials = bucket.endpoint.credentials
        cluster.secrets["prometheus-backup-s3-credentials"] = {
            "access_key_id": credentials.access_key,
            "secret_access_key": credentials.secret_key,
        }
        cluster.claims[source.data_dir.name] = source.data_dir
        yield cluster


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])

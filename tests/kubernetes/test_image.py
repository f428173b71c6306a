"""The container image, as the Dockerfile makes it."""

import re
import shutil
import subprocess
import tomllib

import pytest

from devtools.buildah import BASE, Buildah
from tests.kubernetes.conftest import CONTEXT
from tests.support.cluster import Image
from tests.support.kustomize import PROMETHEUS, pods, render
from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_MEGABYTE = 1_000_000


def _run(image: Image, *command: str, user: int = 12345) -> subprocess.CompletedProcess[str]:
    """Run a command of the image as a user that it does not know."""
    return subprocess.run(
        [
            str(shutil.which("chroot")),
            f"--userspec={user}:{user}",
            "--groups=",
            str(image.layers[0]),
            *command,
        ],
        env=dict(entry.split("=", 1) for entry in image.config["Env"]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_entry_point_is_the_program_and_needs_no_shell(image: Image) -> None:
    assert image.config["Entrypoint"] == ["prometheus-backup"]
    assert image.config["Cmd"] == ["--help"]
    done = _run(image, "prometheus-backup", "--version")
    assert PROJECT["version"] in done.stdout, done.stderr


def test_user_is_a_number_and_not_root(image: Image) -> None:
    # A name would not do: Kubernetes cannot tell of a name that it is not root's.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.config["User"])


def test_labels_say_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == PROJECT["name"]
    assert labels[f"{prefix}.version"] == PROJECT["version"]
    assert labels[f"{prefix}.licenses"] == PROJECT["license"]
    assert re.fullmatch(r"[0-9a-f]{40}", labels[f"{prefix}.revision"])


def test_packages_are_those_of_the_tests(image: Image) -> None:
    list_all = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    done = _run(image, "python3", "-c", list_all)
    pinned = re.findall(
        r"^([\w-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE
    )
    installed = {name.lower().replace("_", "-") for name in done.stdout.split()}
    assert installed == {PROJECT["name"], *pinned}, done.stderr


def test_aws_services_that_are_left_out_are_not_needed(image: Image) -> None:
    services = ("s3", "sts", "sso", "sso-oidc")
    make = f"import boto3; [boto3.client(s, region_name='eu-west-1') for s in {services}]"
    done = _run(image, "python3", "-c", make)
    assert done.returncode == 0, done.stderr


def test_it_adds_little_to_its_base(buildah: Buildah, built_image: str) -> None:
    sizes = {
        name: sum(
            file.lstat().st_size for file in buildah.root(name).rglob("*") if not file.is_dir()
        )
        for name in (BASE, built_image)
    }
    assert sizes[built_image] - sizes[BASE] < 70 * _MEGABYTE


def test_base_is_pinned_and_hashes_are_required() -> None:
    text = (CONTEXT / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(.*)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+", base)
    assert "--require-hashes" in text
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["${BASE}", "${BASE}"]


@pytest.mark.parametrize("folder", ["backup", "restore", "drill", "verify"])
def test_manifests_name_this_version(folder: str) -> None:
    for pod in pods(render(PROMETHEUS / folder)):
        (container,) = pod["spec"]["containers"]
        assert container["image"] == f"health-tracker/prometheus-backup:{PROJECT['version']}"


def test_builder_gets_nothing_but_wheel_and_pins() -> None:
    rules = (CONTEXT / ".dockerignore").read_text().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == [
        "*",
        "!requirements.txt",
        "!prometheus_backup-*.whl",
    ]

"""The container image that the Dockerfile builds."""

import re
import shutil
import stat
import subprocess
import tomllib

import pytest

from tests.kubernetes.conftest import CONTEXT
from tests.support.cluster import Image
from tests.support.kustomize import PROMETHEUS, pods, render
from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_MEGABYTE = 1_000_000


def _run(image: Image, *command: str, user: int = 12345) -> subprocess.CompletedProcess[str]:
    """Run a command of the image as a user that is not in its passwd file."""
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
    # A number, because Kubernetes cannot check that a user name is not root.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.config["User"])


def test_labels_describe_the_image(image: Image) -> None:
    labels = image.config["Labels"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == PROJECT["name"]
    assert labels[f"{prefix}.version"] == PROJECT["version"]
    assert labels[f"{prefix}.licenses"] == PROJECT["license"]
    assert re.fullmatch(r"[0-9a-f]{40}", labels[f"{prefix}.revision"])


def test_packages_are_the_same_as_in_the_tests(image: Image) -> None:
    list_all = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    done = _run(image, "python3", "-c", list_all)
    pinned = re.findall(
        r"^([\w-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE
    )
    installed = {name.lower().replace("_", "-") for name in done.stdout.split()}
    assert installed == {PROJECT["name"], *pinned}, done.stderr


def test_removed_aws_services_are_not_needed(image: Image) -> None:
    services = ("s3", "sts", "sso", "sso-oidc")
    make = f"import boto3; [boto3.client(s, region_name='eu-west-1') for s in {services}]"
    done = _run(image, "python3", "-c", make)
    assert done.returncode == 0, done.stderr


def test_removed_parts_of_numpy_are_not_needed(image: Image) -> None:
    script = (
        "import prometheus_backup.tsdb.chunks, prometheus_backup.tsdb.series, rich.traceback;"
        "from prometheus_backup.tsdb.entries import decode_entries;"
        "print(decode_entries([bytes((1, 0, 1, 1, 4, 5, 8))], 2).max_times)"
    )
    done = _run(image, "python3", "-c", script)
    assert done.stdout == "[7]\n", done.stderr


def test_image_is_small(image: Image) -> None:
    files = [file.lstat() for file in image.layers[0].rglob("*") if not file.is_dir()]
    assert 50 * _MEGABYTE < sum(file.st_size for file in files) < 150 * _MEGABYTE


def test_image_has_no_shell_or_other_programs(image: Image) -> None:
    folders = [image.layers[0] / name for name in ("usr/bin", "usr/sbin", "usr/local/bin")]
    programs = {path.name for folder in folders if folder.exists() for path in folder.iterdir()}
    assert {name for name in programs if not name.startswith("python3")} == set()
    done = _run(image, "/bin/sh", "-c", "true")
    assert "No such file" in done.stderr


def test_image_has_no_setuid_files_or_capabilities(image: Image) -> None:
    modes = {path: path.lstat().st_mode for path in image.layers[0].rglob("*")}
    assert [path for path, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)] == []
    open_to_all = {path for path, mode in modes.items() if mode & 0o002 and not stat.S_ISLNK(mode)}
    assert open_to_all == {image.layers[0] / "tmp"}


def test_scanners_find_the_package_records(image: Image) -> None:
    records = image.layers[0] / "var" / "lib" / "dpkg" / "status.d"
    packages = {path.name: path.read_text() for path in records.iterdir()}
    assert {"libc6", "libssl3", "zlib1g"} & packages.keys()
    for name, record in packages.items():
        assert record.startswith(f"Package: {name}\n")
        assert "\nVersion: " in record


def test_base_is_pinned_and_hashes_are_required() -> None:
    text = (CONTEXT / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(.*)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+", base)
    assert "--require-hashes" in text
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["${BASE}", "scratch"]


@pytest.mark.parametrize("folder", ["backup", "drill", "verify"])
def test_manifests_name_this_version(folder: str) -> None:
    for pod in pods(render(PROMETHEUS / folder)):
        (container,) = pod["spec"]["containers"]
        assert container["image"] == f"health-tracker/prometheus-backup:{PROJECT['version']}"


def test_build_context_has_only_wheel_pins_and_script() -> None:
    rules = (CONTEXT / ".dockerignore").read_text().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == [
        "*",
        "!assemble.py",
        "!requirements.txt",
        "!prometheus_backup-*.whl",
    ]

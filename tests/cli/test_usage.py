"""Invalid settings and arguments: exit 2, a cause, a hint, and nothing is changed."""

import json
from pathlib import Path

import pytest

from devtools.s3 import S3Bucket
from tests.support.stored_backups import LocalFiles, json_of, run_here

NO_TIERS = {"RETENTION_DAILY": "0", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}
S3 = {
    "S3_BUCKET": "bucket",
    "S3_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
}

# Name: arguments, environment, text in the cause, text in the hint.
BAD: dict[str, tuple[list[str], dict[str, str], str, str]] = {
    "unknown command": (["lst"], {}, "lst", "--help"),
    "unknown option": (["list", "--retention-dayly=3"], {}, "--retention-dayly", "--help"),
    "missing argument": (["restore"], {}, "missing argument", "restore --help"),
    "too many arguments": (["show", "a", "b"], {}, "unexpected extra argument", "--help"),
    "negative retention": (["prune", "--retention-daily=-1"], {}, "-1", "--help"),
    "retention in words": (["prune"], {"RETENTION_MONTHLY": "a year"}, "a year", "--help"),
    "no retention at all": (["prune"], NO_TIERS, "retention", ""),
    "no repository": (["list"], {"REPOSITORY": ""}, "cannot determine", "S3_BUCKET"),
    "empty repository": (["list", "--repository="], {}, "cannot determine", "S3_BUCKET"),
    "two repositories": (["list"], {"S3_BUCKET": "b"}, "S3_BUCKET", "only one"),
    "repository of an unknown kind": (
        ["list", "--repository=ftp://h/p"],
        {},
        "unknown scheme",
        "s3://",
    ),
    "repository with a password": (
        ["list", "--repository=s3://me:hunter2@bucket/p"],
        {},
        "has a user",
        "environment",
    ),
    "bucket that is an address": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_BUCKET": "s3://name"},
        "S3_BUCKET",
        "only the name",
    ),
    "repository with an address inside": (
        ["list", "--repository=s3://s3://name/prefix"],
        {},
        "not the name of a bucket",
        "REPOSITORY",
    ),
    "line break inside a bucket": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_BUCKET": "buc\nket"},
        "S3_BUCKET",
        "line break",
    ),
    "line break inside a key": (
        ["list"],
        {"REPOSITORY": "", **S3, "AWS_ACCESS_KEY_ID": "AKIA\nTEST"},
        "AWS_ACCESS_KEY_ID",
        "printf",
    ),
    "space inside a secret": (
        ["list"],
        {"REPOSITORY": "", **S3, "AWS_SECRET_ACCESS_KEY": "hunter2 hunter2"},
        "AWS_SECRET_ACCESS_KEY",
        "printf",
    ),
    "token that is not ASCII": (
        ["list"],
        {"REPOSITORY": "", **S3, "AWS_SESSION_TOKEN": "hunter2\u00e4"},
        "AWS_SESSION_TOKEN",
        "printf",
    ),
    "region that is none": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_REGION": "eu west"},
        "S3_REGION",
        "",
    ),
    "endpoint with a port that is none": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_ENDPOINT_URL": "http://127.0.0.1:99999"},
        "S3_ENDPOINT_URL",
        "https://HOST:PORT",
    ),
    "endpoint without a host": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_ENDPOINT_URL": "http://:9000"},
        "S3_ENDPOINT_URL",
        "https://HOST:PORT",
    ),
    "endpoint with a space": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_ENDPOINT_URL": "http://127.0.0.1 :9000"},
        "S3_ENDPOINT_URL",
        "https://HOST",
    ),
    "unknown class": (
        ["backup", "--storage-class=COLD"],
        {"REPOSITORY": "", "S3_BUCKET": "b"},  # on AWS: other stores have classes of their own
        "COLD",
        "STANDARD_IA",
    ),
    "archive class that is read back": (
        ["backup", "--storage-class=DEEP_ARCHIVE"],
        {"REPOSITORY": "", **S3},
        "cannot be read for hours",
        "VERIFY_LEVEL=size",
    ),
    "archive class that is read whole": (
        ["backup", "--storage-class=GLACIER", "--verify-level=tsdb"],
        {"REPOSITORY": "", **S3},
        "cannot be read for hours",
        "VERIFY_LEVEL=size",
    ),
    "kms key without kms": (
        ["list", "--sse-kms-key-id=k"],
        {"REPOSITORY": "", **S3},
        "KMS",
        "aws:kms",
    ),
    "unknown encryption": (["list", "--sse=rot13"], {}, "rot13", "--help"),
    "endpoint without scheme": (
        ["list"],
        {"REPOSITORY": "", **S3, "S3_ENDPOINT_URL": "s3.example.com"},
        "s3.example.com",
        "https://",
    ),
    "bad size": (["verify", "--max-bandwidth=fast"], {}, "fast", "MiB"),
    "no bandwidth": (["verify", "--max-bandwidth=0"], {}, "'0'", "MiB"),
    "bandwidth without unit": (["list"], {"MAX_BANDWIDTH": "50"}, "MAX_BANDWIDTH: '50'", "Mbit"),
    "bad wait": (["drill", "latest"], {"DRILL_WAIT": "1"}, "DRILL_WAIT: '1'", "6h"),
    "no workers": (["list", "--concurrency=0"], {}, "concurrency", "--help"),
    "label without value": (["backup", "--label=cluster"], {}, "cluster", "NAME=VALUE"),
    "label with a bad name": (["backup"], {"BACKUP_LABELS": "a-b=c"}, "a-b", "NAME=VALUE"),
    "unknown level": (["verify", "--level=drill"], {}, "drill", "--help"),
    "unknown log level": (["list"], {"LOG_LEVEL": "loud"}, "loud", "--help"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_exit_2_with_cause_and_hint_in_every_form(
    repository_files: LocalFiles, tmp_path: Path, name: str
) -> None:
    arguments, env, cause, hint = BAD[name]
    # Settings are checked before directories and servers are.
    env = {
        "REPOSITORY": f"file://{repository_files.root}",
        "PROMETHEUS_DATA_DIR": str(tmp_path),
        "PROMETHEUS_URL": "http://127.0.0.1:9",
        **env,
    }
    before = repository_files.all_keys()

    text = run_here(*arguments, env=env)
    assert text.returncode == 2, text.stderr
    assert text.stdout == ""
    (line,) = text.stderr.splitlines()
    assert " error " in line
    assert "cannot" in line
    assert cause in line
    assert hint in line
    assert "hunter2" not in line

    error = json_of(run_here(*arguments, "--json", env=env), code=2)
    assert {*error} == {"error", "hint", "kind", "exit_code"}
    assert error["kind"] == "UsageError"
    assert cause in error["error"]
    assert hint in error["hint"]

    logged = run_here(*arguments, env=env | {"LOG_FORMAT": "json"})
    (line,) = logged.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
    assert json.loads(line)["exit_code"] == 2
    assert repository_files.all_keys() == before


def test_archive_class_is_accepted_if_nothing_reads_it_back(moto_bucket: S3Bucket) -> None:
    env = {**moto_bucket.endpoint.environment(), "S3_BUCKET": moto_bucket.name}
    command = ("check", "--storage-class=DEEP_ARCHIVE", "--json")

    def settings(*more: str) -> bool:
        document = json.loads(run_here(*command, *more, env=env).stdout)
        return bool(document["checks"][0]["ok"])

    assert not settings()
    assert settings("--verify-level=size")
    assert settings("--no-verify-backup")


@pytest.mark.parametrize(
    ("flags", "env", "file", "named"),
    [
        (["--concurrency=many"], {"CONCURRENCY": "x"}, "concurrency: y", "--concurrency: 'many'"),
        ([], {"CONCURRENCY": "x"}, "concurrency: y", "CONCURRENCY: 'x'"),
        ([], {}, "concurrency: y", "concurrency in {file}: 'y'"),
        ([], {}, "MAX_BANDWIDTH: 50", "max_bandwidth in {file}: '50'"),
        ([], {}, "sse: rot13", "sse in {file}: 'rot13'"),
        ([], {"AWS_REGION": "x", "QUIET": "perhaps"}, "", "QUIET: 'perhaps'"),
    ],
)
def test_error_names_the_place_of_a_bad_value(
    tmp_path: Path, flags: list[str], env: dict[str, str], file: str, named: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(file)

    done = run_here("list", f"--config={path}", *flags, env=env)

    assert done.returncode == 2
    assert f"cannot use {named.format(file=path)}" in done.stderr


@pytest.mark.parametrize("level", ["INFO", "warn", "WARN", "Error"])
def test_log_levels_are_accepted_in_any_case(repository_files: LocalFiles, level: str) -> None:
    env = {**repository_files.environment(), "LOG_LEVEL": level, "LOG_FORMAT": "TEXT"}

    assert run_here("list", env=env).returncode == 0


def test_flag_replaces_the_other_form_of_address_in_the_environment(
    repository_files: LocalFiles, tmp_path: Path
) -> None:
    address = f"file://{repository_files.root}"
    (tmp_path / "settings.yaml").write_text("s3_bucket: from-file")
    file = f"--config={tmp_path / 'settings.yaml'}"

    flag = run_here("list", f"--repository={address}", env={"S3_BUCKET": "exported"})
    variable = run_here("list", file, env={"REPOSITORY": address})
    bucket = run_here("list", "--s3-bucket=b", "--s3-endpoint-url=x", env={"REPOSITORY": address})
    both = run_here("list", f"--repository={address}", "--s3-bucket=b")

    assert (flag.returncode, variable.returncode) == (0, 0), flag.stderr + variable.stderr
    assert "endpoint" in bucket.stderr, "the bucket is used"
    assert "set only one of them" in both.stderr


@pytest.mark.parametrize("repository", ["inside/backups", "", ".."])
def test_local_repository_and_data_directory_must_not_contain_each_other(
    tmp_path: Path, repository: str
) -> None:
    data = tmp_path / "parent" / "data"
    (data / "inside" / "backups").mkdir(parents=True)
    (tmp_path / "link").symlink_to(data / repository)
    env = {"REPOSITORY": f"file://{tmp_path}/link", "PROMETHEUS_DATA_DIR": str(data)}

    checked = json.loads(run_here("check", "--json", env=env).stdout)
    backup = run_here("backup", env=env)
    restore = run_here("restore", "latest", str(data), env=env)

    assert "one contains the other" in checked["checks"][0]["detail"]
    assert checked["checks"][0]["fix"]
    for done in (backup, restore):
        assert done.returncode == 2
        assert "one contains the other" in done.stderr


def test_repository_set_twice_to_the_same_address_is_accepted() -> None:
    done = run_here("list", env={**S3, "REPOSITORY": "s3://bucket/prometheus-snapshots/"})

    assert done.returncode == 13, "it was looked for"
    assert "127.0.0.1:9" in done.stderr or "s3://bucket" in done.stderr


def test_service_variables_of_kubernetes_are_ignored(repository_files: LocalFiles) -> None:
    links = {"CONCURRENCY": "tcp://10.0.0.1:80", "QUIET": "udp://10.0.0.1:53"}
    in_place_of = {"S3_BUCKET": "bucket", "REPOSITORY": "tcp://10.0.0.1:80"}

    listed = run_here("list", env=repository_files.environment() | links)
    refused = run_here("list", "--s3-endpoint-url=x", env=in_place_of)

    assert listed.returncode == 0, listed.stderr
    assert "endpoint" in refused.stderr, "S3_BUCKET counts, and no conflict with REPOSITORY"


@pytest.mark.parametrize("command", [("list",), ("prune", "--dry-run")])
def test_an_option_given_twice_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    done = run_here(
        *command,
        "--retention-daily=3",
        "--retention-daily",
        "90",
        env={"REPOSITORY": f"file://{tmp_path}"},
    )

    assert done.returncode == 2
    assert "option --retention-daily is given twice" in done.stderr


def test_a_misspelled_variable_is_named_in_a_warning(repository_files: LocalFiles) -> None:
    env = repository_files.environment() | {"RETENTION_DAILLY": "90"}
    done = run_here("list", env=env)

    assert done.returncode == 0
    assert "the environment variable RETENTION_DAILLY is not a setting" in done.stderr
    assert "did you mean RETENTION_DAILY?" in done.stderr


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t"])
def test_white_space_at_the_end_of_a_value_is_ignored(s3_bucket: S3Bucket, end: str) -> None:
    env = s3_bucket.endpoint.environment() | {"S3_BUCKET": s3_bucket.name}
    values = {name: f"{value}{end}" for name, value in env.items()}

    done = run_here("list", env=values)

    assert done.returncode == 0, done.stderr
    assert done.stdout == run_here("list", env=env).stdout

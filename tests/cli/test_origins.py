"""`check` says where the value of each setting comes from."""

import json
from pathlib import Path

from tests.support.stored_backups import run_here


def test_check_says_for_each_setting_which_value_came_from_where(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("retention_monthly: 7\nretention_daily: 20\nretention_yearly: 5\n")
    env = {
        "REPOSITORY": f"file://{tmp_path}/repository",
        "PROMETHEUS_URL": "http://127.0.0.1:9",
        "RETENTION_DAILY": "21",
        "RETENTION_YEARLY": "6",
        "HEALTHCHECK_URL": "https://example.com/secret-uuid",
    }
    arguments = ("check", f"--config={config}", "--retention-yearly=2")

    done = run_here(*arguments, "--json", env=env)

    found = {s.pop("name"): s for s in json.loads(done.stdout)["settings"]}
    assert found["RETENTION_DAILY"] == {
        "value": 21,
        "source": "environment",
        "place": "RETENTION_DAILY",
    }
    place = f"retention_monthly in {config}"
    assert found["RETENTION_MONTHLY"] == {"value": 7, "source": "file", "place": place}
    assert found["RETENTION_YEARLY"] == {
        "value": 2,
        "source": "flag",
        "place": "--retention-yearly",
    }
    assert found["S3_SSE"] | {"value": None} == {"value": None, "source": "default", "place": ""}
    assert found["HEALTHCHECK_URL"]["value"] == "(secret)"

    done = run_here(*arguments, env=env)
    for line in (
        "RETENTION_DAILY    21 (environment RETENTION_DAILY)",
        f"RETENTION_MONTHLY  7 (file {place})",
        "RETENTION_YEARLY   2 (flag --retention-yearly)",
    ):
        assert " ".join(line.split()) in " ".join(done.stdout.split())
    assert "secret-uuid" not in done.stdout + done.stderr
    assert "S3_SSE" not in done.stdout

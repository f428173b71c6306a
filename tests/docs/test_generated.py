"""Generated documentation is up to date, and the code accepts the examples."""

import json
import re
import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import jsonschema
import pytest

from devtools import chart, man, reference, schema, tables
from prometheus_backup.cli.commands import commands
from prometheus_backup.cli.manual import MANUAL
from prometheus_backup.config import read_file
from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.simulation import Pace
from prometheus_backup.cost.tsdb import upload_share
from prometheus_backup.repository.manifest import decode_manifest
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.settings import SETTINGS
from tests.support.pages import DOCS, ROOT, Page
from tests.support.stored_backups import json_of, run_here


def test_configuration_page_is_up_to_date() -> None:
    page = reference.CONFIGURATION.read_text()
    assert page == reference.configuration(), "run `python -m devtools.reference`"


def test_files_of_the_chart_are_up_to_date() -> None:
    assert chart.README.read_text() == chart.readme(), "run `python -m devtools.chart`"
    assert chart.SCHEMA.read_text() == chart.schema(), "run `python -m devtools.chart`"


def test_exit_codes_page_is_up_to_date() -> None:
    page = reference.EXIT_CODES.read_text()
    updated = reference.exit_codes_of_commands(reference.exit_codes(page))
    assert page == updated, "run `python -m devtools.reference`"


def test_man_pages_are_up_to_date() -> None:
    written = {path.name: path.read_text() for path in man.FOLDER.iterdir()}
    assert written == man.pages(), "run `python -m devtools.man`"
    assert {*written} == {f"prometheus-backup{c}.1" for c in ("", *(f"-{n}" for n in MANUAL))}


def test_man_pages_contain_every_option_and_example() -> None:
    for name, command in commands.commands.items():
        text = man.pages()[f"prometheus-backup-{name}.1"].replace("\\", "")
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.opts[0] in text
        assert all(example.arguments in text for example in MANUAL[name].examples)
        # A line that begins with a control character would be lost.
        requests = set(
            re.findall(r"^[.'](\w+)", man.pages()[f"prometheus-backup-{name}.1"], re.MULTILINE)
        )
        assert requests <= {"TH", "SH", "SS", "PP", "TP", "B", "BR", "nf", "fi"}


def test_wheel_installs_the_man_pages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pattern,) = project["tool"]["setuptools"]["data-files"]["share/man/man1"]
    assert {path.name for path in ROOT.glob(pattern)} == {*man.pages()}


def test_exit_codes_page_has_every_exit_code() -> None:
    codes = {
        int(code)
        for code in re.findall(r"^\| (\d+) \|", reference.exit_codes(_TABLE), re.MULTILINE)
    }
    assert codes == {0, 1, 2, 3, 10, 11, 12, 13, 14, 20, 21, 22, 30, 31, 32, 33, 40, 41, 130, 143}


def test_monitoring_page_is_up_to_date() -> None:
    page = reference.MONITORING.read_text()
    assert page == reference.monitoring(page), "run `python -m devtools.reference`"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda path: path.name)
def test_computed_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert text == tables.update_tables(text), "run `python -m devtools.tables`"


def test_schema_is_up_to_date() -> None:
    assert schema.PATH.read_text() == schema.text(), "run `python -m devtools.schema`"


def test_configuration_page_has_every_setting_once() -> None:
    rows = re.findall(
        r"^\| `\w+`.*? \| `--[\w-]+`.*? \| `(\w+)` \|", reference.configuration(), re.MULTILINE
    )
    assert sorted(rows) == sorted(SETTINGS)


def test_example_configuration_file_is_accepted(tmp_path: Path) -> None:
    (example,) = Page(DOCS / "configuration.md").blocks("yaml")
    file = tmp_path / "prometheus-backup.yaml"
    file.write_text(example.text)
    settings = read_file(file)
    assert settings["s3_bucket"] == "health-tracker-prometheus-backups"
    assert settings["labels"] == ["cluster=production", "replica=prometheus-0"]


def test_example_manifest_is_valid() -> None:
    (example,) = Page(DOCS / "repository-format.md").blocks("json")
    document = json.loads(example.text)
    jsonschema.validate(document, json.loads(schema.PATH.read_text()))
    manifest = decode_manifest(example.text.encode(), backup_id=document["backup_id"])
    written = json.loads(manifest.model_dump_json())
    assert written == document, "the example must have exactly the fields of the manifest"


def test_schema_rejects_a_manifest_without_blocks() -> None:
    (example,) = Page(DOCS / "repository-format.md").blocks("json")
    document = json.loads(example.text)
    del document["blocks"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(schema.PATH.read_text()))


def test_retention_example_matches_the_code() -> None:
    today, absent = date(2025, 3, 15), {date(2024, 9, 1), date(2024, 9, 2)}
    days = [today - timedelta(n) for n in range((today - date(2023, 6, 1)).days + 1)]
    nights = [datetime(d.year, d.month, d.day, 2, tzinfo=UTC) for d in days if d not in absent]
    backups = [Candidate(f"{n:%Y-%m-%d}", n, good=n.date() != date(2024, 11, 1)) for n in nights]
    decided = decide(backups, today=today, policy=Policy())
    expected = {
        d.backup_id: ("keep" if d.keep else "delete", "; ".join(d.reasons)) for d in decided
    }
    page = Page(DOCS / "retention.md").text
    rows = re.findall(r"^\| (\d{4}-\d\d-\d\d) \| (\w+) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 10
    for day, decision, reasons in rows:
        assert (decision, reasons) == expected[day], day
    kept = sum(d.keep for d in decided)
    assert f"{kept} backups stay" in page


def test_every_dependency_is_documented() -> None:
    page = (DOCS / "dependencies.md").read_text().lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    development = (ROOT / "requirements" / "dev.in").read_text().splitlines()
    wanted = [*project["dependencies"], *(line for line in development if line[:1].isalpha())]
    names = [re.split(r"[\[>=<]", line)[0].lower() for line in wanted]
    assert len(names) > 20
    assert [name for name in names if name not in page] == []


_TABLE = "<!-- table: made by devtools.reference -->\n<!-- end -->"


def test_the_page_on_cost_has_the_numbers_that_estimate_prints() -> None:
    page = Page(tables.DOCS / "explanation" / "cost.md").text
    for size in ("10GB", "100GB", "500GB"):
        given = ("--tsdb-size", size, "--retention-history", "400d", "--json")
        document = json_of(run_here("estimate", *given))
        for x in document["layouts"]:
            history = " + history" if x["history_days"] else ""
            row = next(
                line.strip("| ").split(" | ")
                for line in page.splitlines()
                if line.startswith(f"| {size[:-2]} GB, {x['layout']}{history} | ")
            )
            assert row[1:5] == [
                f"{x['stored_bytes'] / 1000**3:,.0f} GB",
                f"{x['nightly_copied_bytes'] / 1000**3:,.0f} GB",
                f"{x['nightly_requests']:,}",
                f"{x['month']:,.0f}",
            ]


def test_the_page_on_tuning_has_the_share_that_is_new_each_night() -> None:
    page = " ".join(Page(tables.DOCS / "how-to" / "tuning.md").text.split())
    for days in (15, 90):
        share = upload_share(Compactor.of(timedelta(days=days)), Pace())
        assert f"with {days} days, {share * 100:.0f} percent" in page

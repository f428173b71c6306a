"""Generates docs/metadata.schema.json, the schema of the manifest: `python -m devtools.schema`."""

import json
from pathlib import Path

from prometheus_backup.repository.manifest import Manifest

PATH = Path(__file__).parent.parent / "docs" / "metadata.schema.json"


def text() -> str:
    """Return the file's content."""
    described = Manifest.model_json_schema(mode="serialization")
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "metadata.json of a prometheus-backup",
        **{key: value for key, value in described.items() if key != "title"},
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())

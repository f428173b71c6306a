"""Small blocks of Prometheus 3.12 and 3.14, whose chunks a 3.5 cannot read (tests/tsdb/blocks)."""

from pathlib import Path

_BLOCKS = Path(__file__).parents[1] / "tsdb" / "blocks"
XOR2 = _BLOCKS / "3.12.0-xor2/01M8G3DTVVFN5GEMWX055KWPTT"
MIXED = _BLOCKS / "3.14.0-start-timestamps/01M8G3KNJSFSD5DCRB0QZ2629Y"
"""Has chunks of all six encodings."""
EVIDENT = _BLOCKS / "3.12.0-xor2-histograms/01M8G3WVEYAMWF9SCF0VR2T6JQ"
"""Has samples that its meta.json counts neither as floats nor as histograms."""

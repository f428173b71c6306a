"""The encodings of chunks (prometheus tsdb/chunkenc/chunk.go)."""

from collections.abc import Mapping

XOR = 1
ENCODINGS: Mapping[int, str] = {
    XOR: "xor",
    2: "histogram",
    3: "float-histogram",
    4: "xor2",
    5: "histogram-st",
    6: "float-histogram-st",
}
"""4 to 6 exist since Prometheus 3.11, behind feature flags."""
HISTOGRAMS = frozenset({2, 3, 5, 6})
COUNT_MASK = {5: 0x3FFF, 6: 0x3FFF}
"""The bits of the first two bytes that count samples. The others are a counter reset (st.go)."""
ALL_BITS = 0xFFFF

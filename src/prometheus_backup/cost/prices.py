"""List prices of the S3 storage classes, with their date. Pure.

Sources: https://aws.amazon.com/s3/pricing/ (us-east-1), and, for minimum durations and sizes,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from prometheus_backup.errors import UsageError

AS_OF = "2026-03"
"""Year and month of the prices below."""
REGION = "us-east-1"
SMALL = 128 * 1024
"""Bytes. Lifecycle rules do not move smaller objects, and some classes bill them as this size."""


@dataclass(frozen=True, slots=True)
class Price:
    """One class, in US dollars.

    `gb_month` is for 2^30 bytes. `put` and `get` are for 1,000 requests; `put` is also the price of
    COPY, POST and a transition into the class. `retrieval_gb` and `retrieval_requests` (1,000) are
    for reading. An object is billed for at least `minimum_days` and `minimum_bytes`, and for
    `extra_bytes` in addition to its own. `thaw_hours` is how long a standard retrieval takes; 0
    means instant access. `monitoring` is for 1,000 objects a month. `untouched` lists lower prices
    of a GB-month: pairs of days without access and the price from then on.
    """

    gb_month: float
    put: float
    get: float
    retrieval_gb: float = 0.0
    retrieval_requests: float = 0.0
    minimum_days: int = 0
    minimum_bytes: int = 0
    extra_bytes: int = 0
    thaw_hours: int = 0
    monitoring: float = 0.0
    untouched: tuple[tuple[int, float], ...] = ()

    @property
    def instant(self) -> bool:
        """Return whether objects can be read without thawing."""
        return self.thaw_hours == 0


# The price of the first 50 TB a month; more is cheaper.
PRICES: Mapping[str, Price] = {
    "STANDARD": Price(0.023, 0.005, 0.0004),
    "STANDARD_IA": Price(0.0125, 0.01, 0.001, 0.01, minimum_days=30, minimum_bytes=SMALL),
    "ONEZONE_IA": Price(0.01, 0.01, 0.001, 0.01, minimum_days=30, minimum_bytes=SMALL),
    "INTELLIGENT_TIERING": Price(
        0.023, 0.005, 0.0004, monitoring=0.0025, untouched=((30, 0.0125), (90, 0.004))
    ),
    "GLACIER_IR": Price(0.004, 0.02, 0.01, 0.03, minimum_days=90, minimum_bytes=SMALL),
    "GLACIER": Price(
        0.0036, 0.03, 0.0004, 0.01, 0.05, minimum_days=90, extra_bytes=40 * 1024, thaw_hours=5
    ),
    "DEEP_ARCHIVE": Price(
        0.00099, 0.05, 0.0004, 0.02, 0.10, minimum_days=180, extra_bytes=40 * 1024, thaw_hours=12
    ),
}  # fmt: skip

_OVERRIDABLE = {f.name for f in fields(Price)} - {"untouched"}


def override_prices(changes: Mapping[str, Mapping[str, float]]) -> Mapping[str, Price]:
    """Return the prices with some replaced; `changes` maps class name to field to value.

    Raises UsageError for an unknown class or field, or a value that is not a price.
    """
    prices = dict(PRICES)
    for name, values in changes.items():
        if name not in prices:
            raise UsageError(
                f"cannot use the prices: unknown storage class {name!r}",
                hint=f"known classes: {', '.join(PRICES)}",
            )
        for field, value in values.items():
            if field not in _OVERRIDABLE:
                raise UsageError(
                    f"cannot use the prices of {name}: unknown field {field!r}",
                    hint=f"known fields: {', '.join(sorted(_OVERRIDABLE))}",
                )
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise UsageError(f"cannot use the prices of {name}: {field} is {value!r}")
        prices[name] = replace(prices[name], **values)  # type: ignore[arg-type]  # checked above
    return prices

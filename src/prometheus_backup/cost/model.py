"""Calculate what a month of backups costs on S3, by storage class, under a retention policy. Pure.

A month is the average month of the days that are billed (`Kept`). Money is
in US dollars, sizes are in bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_backup.cost.lifetimes import Kept, Lifetime
from prometheus_backup.cost.prices import Price
from prometheus_backup.cost.tsdb import SMALL_ARCHIVED, Workload
from prometheus_backup.model import Layout

GIB = 2**30
"""What S3 bills as a GB."""
PART = 8 * 1024 * 1024
"""Bytes of a part of an upload. Each part is a request."""
CONTROL_FILES = 4
"""Objects of a backup that are always STANDARD: manifest, checksums, a verification, the mark."""
LISTINGS = 3
"""How often a backup lists the archive: to look, after the commit, and for retention."""
LISTED = 1000
"""Objects that one request lists."""
_DAYS_IN_MONTH = 365 / 12


@dataclass(frozen=True, slots=True)
class Strategy:
    """The storage classes of block files: pairs of a day after upload, and the class from then on.

    The first stage (day 0) is the class of the upload. The others are transitions of a lifecycle
    rule, which do not move small files.
    """

    stages: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """Return it as text: `STANDARD, GLACIER_IR after 35 days`."""
        first, *later = self.stages
        return ", ".join([first[1], *(f"{name} after {day} days" for day, name in later)])


STRATEGIES = (
    Strategy(((0, "STANDARD"),)),
    Strategy(((0, "STANDARD"), (35, "GLACIER_IR"))),  # infrastructure/aws/bucket/lifecycle.json
    Strategy(((0, "STANDARD"), (35, "STANDARD_IA"), (90, "GLACIER_IR"))),
    Strategy(((0, "INTELLIGENT_TIERING"),)),
    Strategy(((0, "STANDARD_IA"),)),
    Strategy(((0, "ONEZONE_IA"),)),
    Strategy(((0, "GLACIER_IR"),)),
    Strategy(((0, "STANDARD"), (30, "STANDARD_IA"), (90, "GLACIER"))),
    Strategy(((0, "GLACIER"),)),
    Strategy(((0, "DEEP_ARCHIVE"),)),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What is done in addition to the backups.

    `verify_days`: days in which verification reads every kept byte once (0: never).
    `noncurrent_days`: how long a versioned bucket keeps deleted objects.
    """

    verify_days: int = 0
    noncurrent_days: int = 0


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one backup, by price.

    `data` puts and copies block files, each in the class of the upload, and `parts` sends their
    parts. `control` puts, lists and marks, `reads` gets block files, and `looks` control files.
    """

    data: float
    parts: float
    control: float
    reads: float
    looks: float

    @property
    def total(self) -> float:
        """Return how many there are."""
        return self.data + self.parts + self.control + self.reads + self.looks


@dataclass(frozen=True, slots=True)
class Month:
    """What a strategy costs in a month, and what a full restore costs.

    `thaw_hours` is how long a restore has to wait for archived objects.
    """

    strategy: Strategy
    storage: float
    early_deletion: float
    requests: float
    retrieval: float
    restore_newest: float
    restore_oldest: float
    thaw_hours: int

    @property
    def total(self) -> float:
        """Return the cost of the month, without restores."""
        return self.storage + self.early_deletion + self.requests + self.retrieval


def month(
    strategy: Strategy,
    *,
    workload: Workload,
    kept: Kept,
    usage: Usage,
    prices: Mapping[str, Price],
) -> Month:
    """Return the cost of a strategy."""
    model = _Model(strategy, workload, kept, usage, prices)
    newest = [(model.price_at(age), share) for age, share in kept.newest]
    oldest = [(model.price_at(age), share) for age, share in kept.oldest]
    return Month(
        strategy=strategy,
        storage=model.storage(),
        early_deletion=model.early_deletion(),
        requests=model.requests(),
        retrieval=model.retrieval(),
        restore_newest=model.restore(newest),
        restore_oldest=model.restore(oldest),
        thaw_hours=max(price.thaw_hours for price, _ in (*newest, *oldest)),
    )


def requests_of(load: Workload, kept: Kept, *, copies: bool = True) -> Requests:
    """Return the requests of one backup; `copies` is False if the class cannot be copied from."""
    control = CONTROL_FILES + 1  # the mark is written at least twice
    lists = 10 + kept.backups  # each backup's folder, and the repository
    looks = 3 * kept.backups
    if kept.layout is Layout.ARCHIVE:
        # One listing answers for a thousand objects. Blocks that are there cost nothing.
        uploads, small = load.large_uploads, SMALL_ARCHIVED * load.new_blocks
        lists += LISTINGS * -(-kept.objects // LISTED)
        parts = uploads + load.upload // PART
        return Requests(uploads + small, parts, control + lists, uploads + small, looks)
    uploads = load.large_uploads if copies else load.large
    copied = load.large - uploads
    parts = uploads + (load.upload if copies else load.size) // PART
    reads = uploads + load.small
    return Requests(load.large + load.small, parts, control + lists, reads, looks + 2 * copied)


@dataclass(frozen=True, slots=True)
class _Stage:
    begin: int
    price: Price


@dataclass(frozen=True, slots=True)
class _StagePeriod:
    """The ages in days [begin, end) at which objects are in a stage."""

    life: Lifetime
    stage: _Stage
    begin: int
    end: int

    @property
    def kept_until(self) -> int:
        """Return the age at which they leave the stage or are deleted."""
        return min(self.end, self.life.deleted - self.life.created)

    @property
    def billed_gb(self) -> float:
        """Return the GB that the stage's class bills."""
        return (self.life.size + self.life.large * self.stage.price.extra_bytes) / GIB


class _Model:
    def __init__(
        self,
        strategy: Strategy,
        workload: Workload,
        kept: Kept,
        usage: Usage,
        prices: Mapping[str, Price],
    ) -> None:
        self._workload = workload
        self._kept = kept
        self._usage = usage
        self._standard = prices["STANDARD"]
        self._stages = [_Stage(day, prices[name]) for day, name in strategy.stages]
        self._periods = [p for life in kept.lifetimes for p in self._periods_of(life)]

    def _periods_of(self, life: Lifetime) -> Iterator[_StagePeriod]:
        # A lifecycle rule acts at the midnight after the day is over, so retention has run before
        # and what it deleted is not moved.
        age = life.deleted - life.created
        entered = [s for s in self._stages if s.begin < age or s.begin == 0]
        ends = [s.begin for s in entered[1:]]
        for stage, end in zip(entered, [*ends, life.purged - life.created], strict=True):
            yield _StagePeriod(life, stage, stage.begin, end)

    @property
    def _first(self) -> Price:
        return self._stages[0].price

    @property
    def _shared(self) -> bool:
        return self._kept.layout is Layout.ARCHIVE

    @property
    def _backups_in_month(self) -> float:
        return self._kept.pace.mean_per_day * _DAYS_IN_MONTH

    def price_at(self, age: int) -> Price:
        """Return the price of large files at an age in days."""
        return [s.price for s in self._stages if s.begin < age or s.begin == 0][-1]

    def storage(self) -> float:
        """Return dollars for storage."""
        dollars = 0.0
        for period in self._periods:
            for begin, end, gb_month in self._bands(period):
                dollars += self._months(period.life, begin, end) * period.billed_gb * gb_month
            months = self._months(period.life, period.begin, period.end)
            dollars += months * period.life.large * period.stage.price.monitoring / 1000
            # Small files stay in the first class. Their own bytes are already included.
            small = period.life.small * self._first.minimum_bytes / GIB
            dollars += months * small * self._first.gb_month
        return dollars

    def _bands(self, period: _StagePeriod) -> Iterator[tuple[int, int, float]]:
        """Split a period by price: yield (begin, end, price of a GB-month)."""
        # Objects that verification reads never count as untouched.
        untouched = () if self._usage.verify_days else period.stage.price.untouched
        steps = [(0, period.stage.price.gb_month), *untouched]
        ends = [period.begin + day for day, _ in untouched]
        for (day, gb_month), end in zip(steps, [*ends, period.end], strict=True):
            yield period.begin + day, min(end, period.end), gb_month

    def _months(self, life: Lifetime, begin: int, end: int) -> float:
        """Return how many months of storage at ages [begin, end) are billed per month."""
        days = self._kept.days(life.created + begin, life.created + end)
        return days / (self._kept.end - self._kept.begin)

    def early_deletion(self) -> float:
        """Return dollars for the minimum days that a class bills after objects have left it."""
        dollars = 0.0
        for period in self._periods:
            price, leaves = period.stage.price, period.life.created + period.end
            if self._kept.begin <= leaves < self._kept.end:
                missing = max(0, price.minimum_days - (period.end - period.begin))
                dollars += missing * period.billed_gb * price.gb_month
        return dollars / (self._kept.end - self._kept.begin)

    def requests(self) -> float:
        """Return dollars for requests: uploads, copies, reads, transitions."""
        first = self._first
        nightly = requests_of(self._workload, self._kept, copies=first.instant)
        # Parts of an upload to an archive class are billed as STANDARD (user guide, mpuoverview).
        part = first.put if first.instant else self._standard.put
        each = nightly.data * first.put + nightly.parts * part
        each += nightly.control * self._standard.put + nightly.looks * self._standard.get
        each += nightly.reads * first.get if first.instant else 0.0
        dollars = each * self._backups_in_month / 1000
        months = (self._kept.end - self._kept.begin) / _DAYS_IN_MONTH
        for period in self._periods:
            price, entered = period.stage.price, period.life.created + period.begin
            if period.begin and self._kept.begin <= entered < self._kept.end:
                dollars += period.life.large * price.put / 1000 / months
            if price.instant:
                objects = period.life.large + period.life.small
                dollars += self._read(period) * objects * price.get / 1000
        return dollars

    def retrieval(self) -> float:
        """Return dollars for bytes read: by copies, before the commit, and by verification."""
        load, first = self._workload, self._first
        dollars = 0.0
        if first.instant:
            # "The request can also result in a data retrieval charge for the source" (CopyObject).
            # Uploads are read back before the commit.
            read = load.upload if self._shared else load.size
            dollars = read / GIB * first.retrieval_gb * self._backups_in_month
        for period in self._periods:
            if period.stage.price.instant:
                verified = self._read(period) * period.life.size / GIB
                dollars += verified * period.stage.price.retrieval_gb
        return dollars

    def _read(self, period: _StagePeriod) -> float:
        """Return how often per month verification reads objects while they are in a stage."""
        days = self._usage.verify_days
        months = self._months(period.life, period.begin, max(period.begin, period.kept_until))
        return months * _DAYS_IN_MONTH / days if days else 0.0

    def restore(self, prices: Iterable[tuple[Price, float]]) -> float:
        """Return dollars for reading one whole backup within the region, in shares by price."""
        files, gigabytes = self._workload.files, self._workload.size / GIB
        return sum(
            share
            * (
                gigabytes * price.retrieval_gb
                + files * (price.get + price.retrieval_requests) / 1000
            )
            for price, share in prices
        )

"""What a month of backups costs on S3, by storage class, under a retention policy. Pure.

What is billed in the last year of the model of `lifetimes`, over twelve, is the month. Money is in
US dollars, sizes in bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_backup.cost.lifetimes import BackupLifetime, KeptBackups, Workload
from prometheus_backup.cost.prices import Price

GIB = 2**30
"""S3 bills a GB of this size."""
PART = 8 * 1024 * 1024
"""Bytes of a part of an upload; each is a request."""
CONTROL_FILES = 4
"""Objects of a backup that are always STANDARD: manifest, sums, a verification, the mark."""
_DAYS_IN_MONTH = 365 / 12


@dataclass(frozen=True, slots=True)
class Strategy:
    """Where block files are kept: from which day of their life in which class.

    The first stage, of day 0, is the class that they are uploaded to; the others are transitions
    of a lifecycle rule, which leave small files where they are.
    """

    stages: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        """Return how people speak of it: `STANDARD, GLACIER_IR after 35 days`."""
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
    """What is done besides one backup a night.

    `verify_days`: every kept byte is read once in so many days (0: never). `noncurrent_days`: how
    long a versioned bucket keeps what was deleted.
    """

    verify_days: int = 0
    noncurrent_days: int = 0


@dataclass(frozen=True, slots=True)
class Month:
    """What a strategy costs in a month, and one full restore: of the newest backup and of the
    oldest; `thaw_hours` is how long the oldest must be waited for."""

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
        """Return what the month costs."""
        return self.storage + self.early_deletion + self.requests + self.retrieval


def month(
    strategy: Strategy,
    *,
    workload: Workload,
    kept: KeptBackups,
    habits: Usage,
    prices: Mapping[str, Price],
) -> Month:
    """Return what a strategy costs."""
    model = _Model(strategy, workload, kept, habits, prices)
    newest, oldest = model.price_at(1), model.price_at(kept.oldest_days)
    return Month(
        strategy=strategy,
        storage=model.storage(),
        early_deletion=model.early_deletion(),
        requests=model.requests(),
        retrieval=model.retrieval(),
        restore_newest=model.restore(newest),
        restore_oldest=model.restore(oldest),
        thaw_hours=max(newest.thaw_hours, oldest.thaw_hours),
    )


@dataclass(frozen=True, slots=True)
class _Stage:
    begin: int
    price: Price


@dataclass(frozen=True, slots=True)
class _StagePeriod:
    """The ages at which one backup lies in a stage, [begin, end), and that at its deletion."""

    life: BackupLifetime
    stage: _Stage
    begin: int
    end: int

    @property
    def kept_until(self) -> int:
        """Return the age at which it leaves the stage, or is deleted there."""
        return min(self.end, self.life.deleted - self.life.born)


class _Model:
    def __init__(
        self,
        strategy: Strategy,
        workload: Workload,
        kept: KeptBackups,
        habits: Usage,
        prices: Mapping[str, Price],
    ) -> None:
        self._workload = workload
        self._kept = kept
        self._habits = habits
        self._standard = prices["STANDARD"]
        self._stages = [_Stage(day, prices[name]) for day, name in strategy.stages]
        self._stays = [stay for life in kept.lifetimes for stay in self._stays_of(life)]

    def _stays_of(self, life: BackupLifetime) -> Iterator[_StagePeriod]:
        # A rule acts at the midnight after the day is full: retention, at night, comes before it.
        # It moves nothing that was deleted.
        age = life.deleted - life.born
        entered = [s for s in self._stages if s.begin < age or s.begin == 0]
        ends = [s.begin for s in entered[1:]]
        for stage, end in zip(entered, [*ends, life.gone - life.born], strict=True):
            yield _StagePeriod(life, stage, stage.begin, end)

    @property
    def _first(self) -> Price:
        return self._stages[0].price

    @property
    def _nights(self) -> float:
        return _DAYS_IN_MONTH

    @property
    def _copies(self) -> bool:
        """Tell whether files are copied from the backup before; from an archive they cannot be."""
        return self._first.instant

    @property
    def _uploaded(self) -> int:
        return self._workload.upload if self._copies else self._workload.size

    def price_at(self, age: int) -> Price:
        """Return the price of a backup's large files at an age in days."""
        return [s.price for s in self._stages if s.begin < age or s.begin == 0][-1]

    def storage(self) -> float:
        """Return dollars for what lies there."""
        dollars = 0.0
        for stay in self._stays:
            billed, price = self._billed_gb(stay.stage.price), stay.stage.price
            for begin, end, gb_month in self._bands(stay):
                dollars += self._months(stay.life, begin, end) * billed * gb_month
            months = self._months(stay.life, stay.begin, stay.end)
            dollars += months * self._workload.large * price.monitoring / 1000
            # Small files stay where they came; their own bytes are counted already.
            small = self._workload.small * self._first.minimum_bytes / GIB
            dollars += months * small * self._first.gb_month
        return dollars

    def _bands(self, stay: _StagePeriod) -> Iterator[tuple[int, int, float]]:
        """Yield the ages of a stay that have one price each."""
        # What is read again and again never counts as untouched.
        untouched = () if self._habits.verify_days else stay.stage.price.untouched
        steps = [(0, stay.stage.price.gb_month), *untouched]
        ends = [stay.begin + day for day, _ in untouched]
        for (day, gb_month), end in zip(steps, [*ends, stay.end], strict=True):
            yield stay.begin + day, min(end, stay.end), gb_month

    def _billed_gb(self, price: Price) -> float:
        return (self._workload.size + self._workload.large * price.extra_bytes) / GIB

    def _months(self, life: BackupLifetime, begin: int, end: int) -> float:
        """Return for how many months one backup is billed a month, at ages [begin, end)."""
        days = self._kept.days(life.born + begin, life.born + end)
        return days / (self._kept.end - self._kept.begin)

    def early_deletion(self) -> float:
        """Return dollars for the days that a class bills beyond an object's time in it."""
        dollars = 0.0
        for stay in self._stays:
            price, leaves = stay.stage.price, stay.life.born + stay.end
            if self._kept.begin <= leaves < self._kept.end:
                missing = max(0, price.minimum_days - (stay.end - stay.begin))
                dollars += missing * self._billed_gb(price) * price.gb_month
        return dollars / 365

    def requests(self) -> float:
        """Return dollars for requests: uploads, copies, reading back, transitions."""
        load, first = self._workload, self._first
        sent = load.large_uploads if self._copies else load.large
        puts, parts = load.small + sent, sent + self._uploaded // PART
        copies = load.large - sent
        control = CONTROL_FILES + 1  # the mark is written twice at least
        lists = 10 + self._kept.average  # each backup's folder, and the whole
        # Parts on their way into an archive are STANDARD (user guide, mpuoverview).
        part = first.put if first.instant else self._standard.put
        nightly = (puts + copies) * first.put + parts * part
        nightly += (control + lists) * self._standard.put
        reads = (sent + load.small) if first.instant else 0
        nightly += reads * first.get + (2 * copies + 3 * self._kept.average) * self._standard.get
        dollars = nightly * self._nights / 1000
        for stay in self._stays:
            price, entered = stay.stage.price, stay.life.born + stay.begin
            if stay.begin and self._kept.begin <= entered < self._kept.end:
                dollars += load.large * price.put / 1000 / 12
            if price.instant:
                dollars += self._read(stay) * load.files * price.get / 1000
        return dollars

    def retrieval(self) -> float:
        """Return dollars for bytes read: by copies, by reading back, by verification."""
        load, first = self._workload, self._first
        dollars = 0.0
        if first.instant:
            # "The request can also result in a data retrieval charge for the source" (CopyObject);
            # what was sent is read back before the commit.
            dollars = load.size / GIB * first.retrieval_gb * self._nights
        for stay in self._stays:
            if stay.stage.price.instant:
                read = self._read(stay) * load.size / GIB
                dollars += read * stay.stage.price.retrieval_gb
        return dollars

    def _read(self, stay: _StagePeriod) -> float:
        """Return how often a month verification reads a kept backup while it lies in a stage."""
        days = self._habits.verify_days
        months = self._months(stay.life, stay.begin, max(stay.begin, stay.kept_until))
        return months * _DAYS_IN_MONTH / days if days else 0.0

    def restore(self, price: Price) -> float:
        """Return dollars for reading one backup whole, within the region."""
        requests = self._workload.files * (price.get + price.retrieval_requests) / 1000
        return self._workload.size / GIB * price.retrieval_gb + requests

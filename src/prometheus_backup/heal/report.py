"""What `heal` found and did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_backup.heal.head_files import HeadFault
from prometheus_backup.heal.plan import HealPlan, Remedy
from prometheus_backup.heal.scan import Scan
from prometheus_backup.model import Outcome
from prometheus_backup.tsdb.faults import Effect


@dataclass(frozen=True, slots=True)
class HealReport:
    """What was found and, if `applied`, what was done about it.

    `running`: a Prometheus served the directory. `no_copies`: why backups could not be searched.
    `pending`: replacements that an interrupted heal left ready, by the name of the bad block.
    `moved`: the quarantine paths of bad blocks, by name. `placed`: the blocks that replaced them.
    `head`: the faults of WAL, WBL and head chunks; `head_moved`: the quarantine paths of files.
    `problems`: what went wrong, as messages.
    """

    scan: Scan
    plan: HealPlan
    applied: bool
    running: bool
    no_copies: str = ""
    pending: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    moved: Mapping[str, Path] = field(default_factory=dict)
    placed: tuple[str, ...] = ()
    head: tuple[HeadFault, ...] = ()
    head_moved: Mapping[str, Path] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """Return FAULTY if a scan found blocks to heal, PARTIAL if not all of them were healed.

        A directory without blocks is PARTIAL too.
        """
        if not (self.scan.sound or self.scan.bad or self.pending or self.head):
            return Outcome.PARTIAL
        head = [fault for fault in self.head if fault.effect is not Effect.NONE]
        if self.applied:
            healed = all(r.heals for r in self.plan.repairs) and not self.problems
            healed = healed and all(f.steps and not f.lost for f in head)
            return Outcome.DONE if healed else Outcome.PARTIAL
        to_heal = any(r.remedy is not Remedy.NOTHING for r in self.plan.repairs)
        return Outcome.FAULTY if to_heal or self.pending or head else Outcome.DONE

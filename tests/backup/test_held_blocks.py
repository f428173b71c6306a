"""Blocks are held whole and consistent, whatever Prometheus does between any two steps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prometheus_backup.backup.blocks import HeldBlocks
from prometheus_backup.backup.places import Links, OpenFiles, Place
from prometheus_backup.backup.snapshot import Snapshot
from prometheus_backup.clock import SystemClock
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.events import ignore
from prometheus_backup.tsdb.tombstones import tombstones_of
from prometheus_backup.tsdb.verification import check_mutable
from tests.support.contents import live_blocks, traces, tree
from tests.support.runs import FakeClock

CHILD = "01JJ5W0B8ZC6X3M1S4T9Q2V7KD"
STEPS = 18
"""Four blocks of four files each are held in sixteen steps."""
INTERVAL = bytes([1, 2, 4])  # series 1, from 1 to 2

Act = Callable[[], None]


@pytest.fixture(params=[True, False], ids=["linked", "open"])
def linked(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Steps:
    """Acts before chosen steps of holding files, counted from 0, and remembers how many it saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, linked: bool) -> None:
        self.seen = 0
        self.acts: dict[int, Act] = {}
        kind = Links if linked else OpenFiles
        keep = kind.keep

        def keep_after_acting(place: Place, source: Path, target: Path) -> None:
            if act := self.acts.pop(self.seen, None):
                act()
            self.seen += 1
            keep(place, source, target)  # type: ignore[arg-type]  # of its own kind

        monkeypatch.setattr(kind, "keep", keep_after_acting)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, linked: bool) -> Steps:
    return Steps(monkeypatch, linked)


class Compaction:
    """What Prometheus does in turn: rename the new block into place, then delete the old ones."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.parents = live_blocks(data_dir)[:2]
        self.new = data_dir / f"{CHILD}.tmp-for-creation"
        shutil.copytree(self.parents[0], self.new)
        meta = json.loads((self.new / "meta.json").read_text())
        metas = [json.loads((p / "meta.json").read_text()) for p in self.parents]
        meta |= {"ulid": CHILD, "maxTime": metas[1]["maxTime"]}
        meta["compaction"] = {
            "level": 2,
            "sources": [m["ulid"] for m in metas],
            "parents": [{k: m[k] for k in ("ulid", "minTime", "maxTime")} for m in metas],
        }
        (self.new / "meta.json").write_text(json.dumps(meta))

    def create(self) -> None:
        self.new.rename(self.data_dir / CHILD)

    def delete(self, number: int) -> None:
        block = self.parents[number]
        going = block.with_name(f"{block.name}.tmp-for-deletion")
        block.rename(going)
        shutil.rmtree(going)

    def all(self) -> None:
        self.create()
        self.delete(0)
        self.delete(1)

    def acts(self, first: int, apart: int) -> dict[int, Act]:
        if not apart:
            return {first: self.all}
        return {
            first: self.create,
            first + apart: lambda: self.delete(0),
            first + 2 * apart: lambda: self.delete(1),
        }


def _hold(data_dir: Path, *, linked: bool, look: Callable[[Snapshot], None]) -> None:
    (data_dir / ".prometheus-backup").mkdir(exist_ok=True)
    held = HeldBlocks(data_dir, linked, FakeClock(speed=100), ignore)
    try:
        look(held.hold())
    finally:
        assert held.release() == ()
    assert traces(data_dir) == []


@pytest.mark.parametrize("apart", [0, 1, 3, 7])
def test_a_compaction_at_any_step_is_survived(
    data_dir: Path, tmp_path: Path, linked: bool, steps: Steps, apart: int
) -> None:
    """The parts of the compaction come `apart` steps after each other, the first at any step."""
    for first in range(STEPS):
        place = tmp_path / str(first)
        shutil.copytree(data_dir, place)
        compaction = Compaction(place)
        before = {p.name: tree(p) for p in live_blocks(place) if "." not in p.name}
        before[CHILD] = tree(compaction.new)
        steps.seen, steps.acts = 0, compaction.acts(first, apart)

        def look(snapshot: Snapshot, before: dict[str, dict[str, bytes]] = before) -> None:
            names = {block.ulid for block in snapshot.blocks}
            parents = {p.name for p in compaction.parents}  # noqa: B023 -- called in this round
            assert names in (before.keys() - {CHILD}, before.keys() - parents)
            for block in snapshot.blocks:
                found = {f.path: (snapshot.path / block.ulid / f.path) for f in block.files}
                assert {path: p.read_bytes() for path, p in found.items()} == before[block.ulid]
            assert not snapshot.unusable

        _hold(place, linked=linked, look=look)


def test_a_listing_that_misses_old_and_new_blocks_is_not_believed(
    data_dir: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing is not atomic: it may pass the new block too early, and the old ones too late."""
    compaction = Compaction(data_dir)
    parents = {path.name for path in compaction.parents}
    names, calls = HeldBlocks._live_names, []

    def torn(held: HeldBlocks) -> frozenset[str]:
        calls.append(1)
        if len(calls) != 2:
            return names(held)
        compaction.all()
        return names(held) - {CHILD}

    monkeypatch.setattr(HeldBlocks, "_live_names", torn)

    def look(snapshot: Snapshot) -> None:
        found = {block.ulid for block in snapshot.blocks}
        assert CHILD in found
        assert not found & parents
        assert len(found) == 3

    _hold(data_dir, linked=linked, look=look)


@pytest.mark.parametrize("apart", [1, 2, 5])
def test_meta_json_and_tombstones_match_if_they_are_replaced_at_any_step(
    data_dir: Path, linked: bool, steps: Steps, apart: int
) -> None:
    """Prometheus replaces the tombstones first, and then meta.json, which counts them."""
    block = live_blocks(data_dir)[1]
    plain = json.loads((block / "meta.json").read_text())

    def replace(name: str, data: bytes) -> None:
        (block / f"{name}.tmp").write_bytes(data)
        (block / f"{name}.tmp").replace(block / name)

    def look(snapshot: Snapshot) -> None:
        assert check_mutable(snapshot.path / block.name).faults == ()

    for first in range(STEPS):
        for count in (1, 0):  # deleted, then deleted no more
            meta = plain | {"stats": plain["stats"] | {"numTombstones": count}}
            steps.seen = 0
            steps.acts = {
                first: lambda n=count: replace(  # type: ignore[misc]
                    "tombstones", tombstones_of([INTERVAL] * n)
                ),
                first + apart: lambda m=meta: replace(  # type: ignore[misc]
                    "meta.json", json.dumps(m).encode()
                ),
            }
            _hold(data_dir, linked=linked, look=look)
            for act in steps.acts.values():  # too late to meet the run
                act()


def test_counts_that_stay_wrong_are_taken_as_they_are(data_dir: Path, linked: bool) -> None:
    block = live_blocks(data_dir)[1]
    (block / "tombstones").write_bytes(tombstones_of([INTERVAL]))

    def look(snapshot: Snapshot) -> None:
        assert len(snapshot.blocks) == 4
        stored = (snapshot.path / block.name / "tombstones").read_bytes()
        assert stored == (block / "tombstones").read_bytes()

    _hold(data_dir, linked=linked, look=look)


def test_blocks_that_change_all_the_time_end_the_run(
    data_dir: Path, linked: bool, steps: Steps
) -> None:
    meta = live_blocks(data_dir)[0] / "meta.json"

    def replace() -> None:
        text = meta.read_text()
        meta.unlink()
        meta.write_text(text)
        steps.acts = {steps.seen + 2: replace}

    steps.acts = {1: replace}
    with pytest.raises(SnapshotUnusable, match="they kept changing"):
        _hold(data_dir, linked=linked, look=lambda _: None)
    assert traces(data_dir) == []


def test_without_links_files_are_held_open(data_dir: Path) -> None:
    """Such as on a volume that has no hard links; here the folder for them is missing."""
    held = HeldBlocks(data_dir, True, SystemClock(), ignore)  # there is no tool's folder
    try:
        snapshot = held.hold()
        assert not snapshot.path.is_relative_to(data_dir)
        assert len(snapshot.blocks) == 4
        shutil.rmtree(live_blocks(data_dir)[0])
        for block in snapshot.blocks:
            assert (snapshot.path / block.ulid / "index").stat().st_size
    finally:
        held.release()
    assert not snapshot.path.exists()

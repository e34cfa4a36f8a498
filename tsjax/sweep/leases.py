"""Leases in the folder `claims/` of a store: they say which of several processes runs which cells.

A process that runs cells is a *worker*, and each of its cells belongs to a *unit*, the smallest thing that a worker can claim.
No file is locked. Apart from heartbeats, files are only created, moved and removed, and at most one process succeeds in
creating a file. This holds over NFS too, and in object stores that can put an object only if it does not exist. The files are

- `w-WORKER.K`: the log of a worker. Entry 0 says where it runs, later entries say which chunk it commits next, and the last
  entry says that it is closed, by itself or by another worker. A worker and another one that closes it compete for the same
  next entry. So a closed worker cannot commit any more, even if it was not dead but slow.
- `w-WORKER.alive`: its heartbeat, a number that grows. A worker is taken for dead when another worker has not seen the number
  change for the time of a lease. Each worker uses its own clock, so the clocks of two machines are never compared. On the same
  machine, a worker is dead when its process is gone.
- `u-UNIT.K`: the holder of a unit. The entry with the largest K counts. When its worker is closed, entry K + 1 may be created.
- `SHA256.parquet`: a chunk on its way. Its worker writes it here, announces it in the log, and then moves it to the chunks. If
  the worker is closed in between, the worker that takes over its units moves the chunk. So an announced chunk is never lost.

Cells are done when their records are among the chunks; the other cells in the units of a closed worker are free. All files are
removed when the sweep is complete and nobody else works on it.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import LocalFiles, RemoteFiles

FOLDER = "claims"
LEASE_SECONDS = 60.0
"""A worker is taken for dead after this time without a heartbeat, by default."""
BEAT_SECONDS = 5.0
"""The time between heartbeats; it is shorter if leases are short."""
# A worker is not taken for dead before this many of its own heartbeat intervals, however short a lease is.
_BEATS = 4
# The time between looks at the folder; it is shorter if leases are short.
_LOOK_SECONDS = 1.0
_ATTEMPTS = 5
# The workers of this process that are not closed. A worker of this process that is not among them is gone, even if it could not
# write that into its log, since the disk was full or the store was moved.
_OPEN: set[str] = set()


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def this_machine() -> str:
    """A name of this machine and of its process namespace (a container has its own); empty if it is unknown."""
    boot = _read_text("/proc/sys/kernel/random/boot_id").strip()
    try:
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}" if boot else ""
    except OSError:
        return ""


def started(process: int) -> str:
    """When a process of this machine began, in clock ticks: with its number it identifies a process, since numbers are reused.
    `ended` for a process that has ended but still has its number; empty if the time is unknown."""
    fields = _read_text(f"/proc/{process}/stat").rpartition(")")[2].split()
    if len(fields) < 20:
        return ""
    return "ended" if fields[0] in ("Z", "X") else fields[19]


@dataclass
class _Seen:
    """What is known about another worker: entry 0 of its log, its last heartbeat and when that was first seen, and the entry
    that closes it."""

    opening: dict[str, Any] = field(default_factory=dict)
    beat: bytes = b""
    since: float = 0.0
    closed: dict[str, Any] | None = None


def _ended(seen: _Seen, worker: str) -> bool:
    """Whether a worker closed itself, so that it never comes back."""
    return seen.closed is not None and seen.closed.get("closed", worker) == worker


class Leases:
    """The leases of one worker, which is opened when it begins to work and closed when it ends. Several threads may use them.

    **Raises:** OSError in every method, if the disk refuses.
    """

    def __init__(self, files: LocalFiles | RemoteFiles, lease_seconds: float = LEASE_SECONDS):
        self.files, self.lease_seconds = files, lease_seconds
        self.beat_seconds = min(BEAT_SECONDS, lease_seconds / _BEATS)
        self.look_seconds = min(_LOOK_SECONDS, lease_seconds / _BEATS)
        self.held: set[str] = set()
        """The units that this worker holds."""
        self._lock = threading.RLock()
        self._units: dict[str, int] = {}
        self._holders: dict[str, str] = {}
        self._workers: dict[str, _Seen] = {}
        self._looked = -float("inf")
        self._stop = threading.Event()
        self._lost = False
        self._open()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    # This worker

    def _open(self) -> None:
        """Begins as a new worker."""
        _OPEN.discard(getattr(self, "id", ""))
        self.id, self._entry = uuid.uuid4().hex, 0
        _OPEN.add(self.id)
        self.held.clear()
        self._holders.clear()
        self._pulse = 0
        opening = {"machine": this_machine(), "process": os.getpid(), "started": started(os.getpid())}
        for attempt in range(_ATTEMPTS):
            self.files.make_folder(FOLDER)
            try:
                self.files.write(f"{FOLDER}/w-{self.id}.alive", b"0")
                self._create(f"w-{self.id}.0", {**opening, "beat": self.beat_seconds})
                return
            except FileNotFoundError:
                # A worker that has just completed the sweep has removed the folder.
                if attempt == _ATTEMPTS - 1:
                    raise

    def _create(self, name: str, content: Any) -> bool:
        return self.files.create(f"{FOLDER}/{name}", json.dumps(content).encode(), flushed=False)

    def _beat(self) -> None:
        while not self._stop.wait(self.beat_seconds):
            with self._lock:
                self._pulse += 1
                try:
                    self.files.write(f"{FOLDER}/w-{self.id}.alive", str(self._pulse).encode())
                except OSError:
                    # The disk may be full or unreachable only for a moment; if that lasts, committing fails too.
                    continue

    def commit(self, name: str, content: bytes) -> bool:
        """Adds a chunk to the store. False if another worker has closed this one, and may have run its cells since; this
        process then continues as a new worker, which holds nothing."""
        with self._lock:
            staged = f"{FOLDER}/{name}"
            self.files.write(staged, content)
            if not self._create(f"w-{self.id}.{self._entry + 1}", {"chunk": name}):
                self.files.remove([staged])
                self._open()
                self._lost = True
                return False
            self._entry += 1
            self.files.rename(staged, f"chunks/{name}")
            if self._entry > 1:
                self.files.remove([f"{FOLDER}/w-{self.id}.{self._entry - 1}"])
            return True

    def close(self, units: Iterable[str] = ()) -> None:
        """Closes this worker, which frees its units. If the sweep is complete, `units` are all units of the sweep, and all
        files are removed unless another worker is at work."""
        self._stop.set()
        self._heart.join()
        _OPEN.discard(self.id)
        with self._lock:
            self._create(f"w-{self.id}.{self._entry + 1}", {"closed": self.id})
            if units:
                self.look(now=True)
                if not self.others:
                    self._clean(set(units))
                    return
            self.files.remove([f"{FOLDER}/w-{self.id}.alive"])

    def _clean(self, units: set[str]) -> None:
        for seen in self._workers.values():
            self._publish(seen)
        gone = []
        for name in self.files.names(FOLDER):
            kind, _, rest = name.partition("-")
            owner = rest.partition(".")[0]
            if kind == "u":
                mine = owner in units
            elif kind == "w":
                # The log of a worker that may only be slow stays, so that it finds itself closed when it comes back.
                seen = self._workers.get(owner)
                mine = owner == self.id or self._is_gone(owner, seen) or (seen is not None and _ended(seen, owner))
            else:
                # A chunk that was never announced, and whose worker is closed.
                mine = name.endswith(".parquet")
            if mine:
                gone.append(f"{FOLDER}/{name}")
        self.files.remove(gone)
        self.files.remove_folder(FOLDER)

    # Other workers

    @property
    def others(self) -> bool:
        """Whether another worker was at work at the last look."""
        return any(seen.closed is None for seen in self._workers.values())

    def look(self, *, now: bool = False) -> None:
        """Reads the folder, unless it was read a moment ago (`now` forces it), and closes workers that are dead."""
        with self._lock:
            time_now = time.monotonic()
            if not now and time_now - self._looked < self.look_seconds:
                return
            self._looked = time_now
            entries: dict[str, int] = {}
            self._units = {}
            for name in self.files.names(FOLDER):
                kind, _, rest = name.partition("-")
                owner, _, number = rest.partition(".")
                if kind == "u" and number.isdigit():
                    self._units[owner] = max(int(number), self._units.get(owner, -1))
                elif kind == "w" and number.isdigit() and owner != self.id:
                    entries[owner] = max(int(number), entries.get(owner, -1))
            for worker, entry in entries.items():
                self._look_at(worker, entry, time_now)

    def _look_at(self, worker: str, entry: int, now: float) -> None:
        seen = self._workers.setdefault(worker, _Seen(since=now))
        if seen.closed is not None:
            return
        try:
            if not seen.opening:
                seen.opening = self._read(f"w-{worker}.0")
        except FileNotFoundError:
            # The worker has ended and the sweep is complete: its files are being removed.
            seen.closed = {}
            return
        except ValueError:
            return
        try:
            if entry > 0:
                last = self._read(f"w-{worker}.{entry}")
                if "closed" in last:
                    seen.closed = last
                    return
            beat = self.files.read(f"{FOLDER}/w-{worker}.alive")
        except FileNotFoundError:
            # The worker has gone on, or has closed itself, in the meantime: the next look shows which.
            beat = seen.beat
        except ValueError:
            return
        if beat != seen.beat:
            seen.beat, seen.since = beat, now
        patience = max(self.lease_seconds, _BEATS * float(seen.opening.get("beat", 0.0)))
        if self._is_gone(worker, seen) or now - seen.since > patience:
            self._close_other(worker, seen)

    def _read(self, name: str) -> dict[str, Any]:
        return json.loads(self.files.read(f"{FOLDER}/{name}"))

    def _is_gone(self, worker: str, seen: _Seen | None) -> bool:
        """Whether a worker was a process of this machine that has ended, or a worker of this process that is closed."""
        if seen is None or not seen.opening.get("machine") or seen.opening["machine"] != this_machine():
            return False
        if seen.opening["process"] == os.getpid():
            return worker not in _OPEN
        try:
            os.kill(seen.opening["process"], 0)
        except ProcessLookupError:
            return True
        except OSError:
            # The process belongs to another user.
            return False
        return started(seen.opening["process"]) not in ("", seen.opening["started"])

    def _entries(self, worker: str) -> list[int]:
        names = [
            name.removeprefix(f"w-{worker}.") for name in self.files.names(FOLDER) if name.startswith(f"w-{worker}.")
        ]
        return sorted(int(name) for name in names if name.isdigit())

    def _close_other(self, worker: str, seen: _Seen) -> None:
        """Closes another worker, which then cannot commit any more, or finds out that it goes on."""
        entries = self._entries(worker)
        if not entries:
            seen.closed = {}
            return
        try:
            last = self._read(f"w-{worker}.{entries[-1]}")
        except (FileNotFoundError, ValueError):
            return
        if "closed" in last:
            seen.closed = last
            return
        closing = {"closed": self.id, "chunk": last.get("chunk")}
        entry = entries[-1] + 1
        if not self._create(f"w-{worker}.{entry}", closing):
            return
        if self._entries(worker)[-1] != entry:
            # The list was stale: the worker has gone on since, and had removed the entry whose number this one took.
            self.files.remove([f"{FOLDER}/w-{worker}.{entry}"])
            return
        seen.closed = closing

    # Units

    def is_free(self, unit: str) -> bool:
        """Whether this worker holds a unit, or nobody held it at the last look."""
        with self._lock:
            if unit in self.held:
                return True
            number = self._units.get(unit, -1)
            return number < 0 or self._closed_holder(unit, number) is not None

    def _closed_holder(self, unit: str, number: int) -> _Seen | None:
        name = f"u-{unit}.{number}"
        if name not in self._holders:
            try:
                self._holders[name] = self._read(name)["worker"]
            except (FileNotFoundError, ValueError):
                return None
        worker = self._holders[name]
        if worker == self.id:
            return None
        if worker not in self._workers:
            try:
                self._read(f"w-{worker}.0")
            except FileNotFoundError:
                # The worker has ended, and its files are gone.
                self._workers[worker] = _Seen(closed={})
            except ValueError:
                return None
        seen = self._workers.get(worker)
        return seen if seen is not None and seen.closed is not None else None

    def _publish(self, seen: _Seen) -> None:
        """Moves the last chunk that a closed worker announced to the chunks, if it is not there yet."""
        chunk = (seen.closed or {}).get("chunk")
        if chunk:
            self.files.rename(f"{FOLDER}/{chunk}", f"chunks/{chunk}")

    def take(self, unit: str) -> tuple[bool, bool]:
        """Claims a unit. Returns whether this worker holds it now, and whether another worker may have done some of its
        cells."""
        with self._lock:
            if unit in self.held:
                return True, False
            number = self._units.get(unit, -1)
            if number >= 0:
                before = self._closed_holder(unit, number)
                if before is None:
                    return False, False
                self._publish(before)
            self._units[unit] = number + 1
            if not self._create(f"u-{unit}.{number + 1}", {"worker": self.id}):
                return False, False
            self.held.add(unit)
            # While this process was taken for dead, the sweep may have been completed, and the files of units removed.
            return True, number >= 0 or self._lost

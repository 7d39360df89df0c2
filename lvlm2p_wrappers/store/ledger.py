"""The budget and the rate limit that all who share a store keep together: what each call may cost, and when it began.

Both are rows with leases. A process that falls silent is taken to have made its calls, at their worst, until its lease
ended.
"""

from __future__ import annotations

import math

import sqlalchemy as sa
from sqlalchemy import Connection

from lvlm2p_wrappers.records import Standing
from lvlm2p_wrappers.store import processes, tables
from lvlm2p_wrappers.store.statements import Statement, add_unless_there
from lvlm2p_wrappers.store.store import Store

LEASE_S = 120.0
"""How long a call counts as under way after its process has fallen silent."""

_ADD_RESERVATION = add_unless_there(tables.reservations)
_DROP_RESERVATION = Statement("DELETE FROM reservations WHERE uid = :uid")
_RESERVE = Statement("""
    UPDATE shared SET reserved = reserved + :nano, calls = calls + 1
    WHERE name = 'budget' AND (:usd < 0 OR spent + reserved + :nano <= :usd) AND (:most < 0 OR calls < :most)
""")
_SETTLE = Statement("""
    UPDATE shared SET reserved = reserved - :nano, spent = spent + :charge, calls = calls - :unmade
    WHERE name = 'budget'
""")
_STANDING = Statement("SELECT spent, reserved, calls FROM shared WHERE name = 'budget'")
_ONE_AFTER_ANOTHER = Statement("UPDATE shared SET calls = calls + 1 WHERE name = 'starts'")
_START = add_unless_there(tables.starts)
_STARTED = Statement("SELECT ended FROM starts WHERE uid = :uid")
_COUNT_STARTS = Statement("SELECT count(*) FROM starts")
_END = Statement("UPDATE starts SET ended = :now WHERE uid = :uid AND ended IS NULL")
_FORGET = Statement("DELETE FROM starts WHERE ended <= :before")


class Ledger:
    """What all processes with one store may spend, and how fast they call. Each method is one transaction.

    Args:
        store: where it is kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def reserve(self, uid: str, nano: int, *, usd: int | None, calls: int | None) -> Standing:
        """Set aside what a call may cost, unless that could go over the budget.

        Args:
            uid: of the call.
            nano: its worst case.
            usd: the most to spend, in nano-dollars; None for no limit.
            calls: the most calls; None for no limit.
        """
        limits = {"nano": nano, "usd": -1 if usd is None else usd, "most": -1 if calls is None else calls}

        def work(connection: Connection) -> Standing:
            now = self._store.now(connection)
            row = {"uid": uid, "owner": self._store.owner, "nano": nano, "expires": now + LEASE_S}
            # Its row comes first: it is there already where a server went away before it could say so.
            is_held = _ADD_RESERVATION.on(connection, row).rowcount == 0 or _RESERVE.on(connection, limits).rowcount > 0
            if not is_held and self._charge_the_dead(connection, now):
                is_held = _RESERVE.on(connection, limits).rowcount > 0
            if not is_held:
                _DROP_RESERVATION.on(connection, row)
            return Standing(is_held, *_STANDING.on(connection, {}).row or (0, 0, 0))

        return self._store.run(work)

    def settle(self, uid: str, nano: int, *, charge: int, is_made: bool) -> None:
        """End a reservation, if it was made: the call's cost takes the place of its worst case."""

        def work(connection: Connection) -> None:
            if _DROP_RESERVATION.on(connection, {"uid": uid}).rowcount:
                _SETTLE.on(connection, {"nano": nano, "charge": charge, "unmade": int(not is_made)})

        self._store.run(work)

    def start(self, uid: str, *, rpm: int, window_s: float) -> float:
        """Let a call begin, unless that could be one too many within any ``window_s``.

        When a call arrived is known only to lie between its start and its end, so that it counts until ``window_s``
        after its end.

        Returns:
            0 if it may begin now; else seconds after which to ask again, infinite while only the end of a call can
            make room.
        """

        def work(connection: Connection) -> float:
            _ONE_AFTER_ANOTHER.on(connection, {})
            now = self._store.now(connection)
            if _STARTED.on(connection, {"uid": uid}).row is not None:
                return 0.0
            _FORGET.on(connection, {"before": now - window_s})
            (count,) = _COUNT_STARTS.on(connection, {}).row or (0,)
            if count >= rpm:
                return self._delay(connection, now, count - rpm, window_s)
            row = {"uid": uid, "owner": self._store.owner, "ended": None, "expires": now + LEASE_S}
            _START.on(connection, row)
            return 0.0

        return self._store.run(work)

    def end(self, uid: str) -> None:
        """Note that a call has ended, if it has begun."""
        self._store.run(lambda connection: _END.on(connection, {"uid": uid, "now": self._store.now(connection)}))

    def _delay(self, connection: Connection, now: float, over: int, window_s: float) -> float:
        """Seconds until one call more than ``over`` is out of the window."""
        ends = []
        for row in connection.execute(sa.select(tables.starts)).all():
            if row.ended is None and not processes.holds(row.owner, row.expires, now):
                _END.on(connection, {"uid": row.uid, "now": min(now, row.expires)})
                ends.append(min(now, row.expires))
            elif row.ended is not None:
                ends.append(row.ended)
        return max(0.001, sorted(ends)[over] + window_s - now) if len(ends) > over else math.inf

    def _charge_the_dead(self, connection: Connection, now: float) -> bool:
        """Charge the reservations of processes that ended, or fell silent; whether there were any."""
        dead = [
            row
            for row in connection.execute(sa.select(tables.reservations).order_by(tables.reservations.c.uid))
            if not processes.holds(row.owner, row.expires, now)
        ]
        dropped = [row.nano for row in dead if _DROP_RESERVATION.on(connection, {"uid": row.uid}).rowcount]
        if dropped:
            _SETTLE.on(connection, {"nano": sum(dropped), "charge": sum(dropped), "unmade": 0})
        return bool(dropped)

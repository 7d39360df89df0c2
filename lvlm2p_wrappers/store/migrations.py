"""Named, ordered steps that bring a store of any earlier version to the layout of ``tables``.

A new store runs all of them, too, so each is written to find its work done already: it makes a table *if it is not
there*, adds a column *unless it is there*. Append new ones to ``MIGRATIONS``; never change one that was released.
"""

from __future__ import annotations

import re
import time

from sqlalchemy import Connection, inspect, select, update
from sqlalchemy.schema import CreateIndex, CreateTable

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.store import statements, tables
from lvlm2p_wrappers.store.location import Engine


def m001_initial(connection: Connection) -> None:
    """Make the tables of version 0.1.0."""
    for table in (tables.answers, tables.calls, tables.turns, tables.parts, tables.claims):
        connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(CreateIndex(tables.calls_by_key, if_not_exists=True))


def m002_shared_limits(connection: Connection) -> None:
    """Make the tables of a budget and a rate limit that all who share the store keep."""
    for table in (tables.shared, tables.reservations, tables.starts):
        connection.execute(CreateTable(table, if_not_exists=True))
    for name in ("budget", "starts"):
        statements.ADD_SHARED.on(connection, {"name": name, "spent": 0, "reserved": 0, "calls": 0})


MIGRATIONS = (m001_initial, m002_shared_limits)


def migrate(connection: Connection, engine: Engine) -> None:
    """Check that a database is a store, and run the migrations that it has not seen, unless it is only read.

    Each is one transaction, so that processes may migrate a store at once, and be killed meanwhile. ``schema_version``
    in ``meta`` counts them; version 0.1.0 reads it, too.

    Raises:
        StoreError: the database is of something else, or the store was written by a newer version.
    """
    with connection.begin():
        found = set(inspect(connection).get_table_names())
        is_new = _version(connection, engine, found) is None
        applied = connection.scalars(select(tables.migrations.c.name)).all() if "migrations" in found else []
    if engine.read_only or (len(applied) == len(MIGRATIONS) and not is_new):
        return
    with connection.begin():
        engine.exclude_writers(connection)
        for table in (tables.meta, tables.migrations):
            connection.execute(CreateTable(table, if_not_exists=True))
        statements.ADD_META.on(connection, {"name": "schema_version", "value": "1"})
    for number, migration in enumerate(MIGRATIONS, start=1):
        with connection.begin():
            engine.exclude_writers(connection)
            # Its row comes first, so that it waits for another process's at its start.
            row = {"name": migration.__name__, "at": time.time()}
            if statements.ADD_MIGRATION.on(connection, row).rowcount == 1:
                migration(connection)
                version = update(tables.meta).where(tables.meta.c.name == "schema_version")
                connection.execute(version.values(value=str(number)))


def _version(connection: Connection, engine: Engine, found: set[str]) -> int | None:
    """The number of migrations that a store has seen, by ``meta``; None of a new one."""
    version = None
    if "meta" in found:
        version = connection.scalar(select(tables.meta.c.value).where(tables.meta.c.name == "schema_version"))
    if version is None and found <= set(tables.METADATA.tables) and not engine.read_only:
        return None  # another process may be making it at this moment
    another = "Name another one with store= or LVLM2P_STORE"
    if not re.fullmatch("[0-9]{1,9}", str(version)):
        what = "a database of something else" if found else "empty"
        raise StoreError(f"{engine.name} is {what}, not an lvlm2p store. {another}.")
    if int(str(version)) > len(MIGRATIONS):
        raise StoreError(
            f"the store {engine.name} has schema version {version}, and this lvlm2p knows versions up to "
            f"{len(MIGRATIONS)}: upgrade with `pip install -U lvlm2p`. {another}."
        )
    return int(str(version))

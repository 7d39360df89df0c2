"""The tables of a store."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Column, Double, Index, LargeBinary, MetaData, Table

METADATA = MetaData()

# PostgreSQL's whole numbers are short unless asked, and its order of texts depends on a language.
Integer = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

meta = Table("meta", METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

migrations = Table("migrations", METADATA, Column("name", Text, primary_key=True), Column("at", Double, nullable=False))

answers = Table(
    "answers",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("at", Double, nullable=False),
)

calls = Table(
    "calls",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),  # stays the same through export and import
    Column("at", Double, nullable=False),
    Column("key", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("requested_model", Text, nullable=False),
    Column("schema", Text, nullable=False),  # a digest in parts
    Column("options", Text, nullable=False),
    Column("reply", Text),
    Column("answered_model", Text),
    Column("outcome", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("status", Integer),
    Column("attempt", Integer, nullable=False),
    Column("latency_s", Double, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_usd", Double),
)
calls_by_key = Index("calls_by_key", calls.c.key)

# The messages of a call. Rows, not a JSON column, so that plain SQL finds the parts that nothing refers to any more.
turns = Table(
    "turns",
    METADATA,
    Column("call_id", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),  # a digest in parts
    Column("png", Text),  # likewise; the part is missing if the call was imported without its picture
)

parts = Table(
    "parts",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# Of all processes with budget_scope="store": nano-dollars that they have spent and set aside, and how many calls they
# made. At a second row, named "starts", those with rpm_scope="store" wait for each other.
shared = Table(
    "shared",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("spent", Integer, nullable=False),
    Column("reserved", Integer, nullable=False),
    Column("calls", Integer, nullable=False),
)

# What is set aside for a call under way: a lease.
reservations = Table(
    "reservations",
    METADATA,
    Column("uid", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("nano", Integer, nullable=False),
    Column("expires", Double, nullable=False),
)

# Calls that have begun, until they do not count any more: a lease until they have ended.
starts = Table(
    "starts",
    METADATA,
    Column("uid", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("ended", Double),
    Column("expires", Double, nullable=False),
)

# Who asks a question now, and until when that holds: a lease.
claims = Table(
    "claims",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires", Double, nullable=False),
)

"""Calls to put into a store, and a way around it."""

import numpy as np
import sqlalchemy as sa

from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import Answer, Call, Message
from lvlm2p_wrappers.saved_picture import SavedPicture

PNG = Picture(np.random.default_rng(0).integers(256, size=(24, 32, 3), dtype=np.uint8)).png
ANSWER = Answer('{"probabilities": {"left": 1.0}}', "gemini/gemini-2.5-flash-lite")
CALL = Call(
    key="k",
    stage="action",
    env_id="MiniGrid-LavaGapS7-v0",
    requested_model="gemini/gemini-2.5-flash-lite",
    messages=(
        Message("system", "You are a teacher. " * 50),
        Message("user", "Mission: avoid the lava", SavedPicture(PNG)),
    ),
    schema_text='{"type": "object"}',
    options='{"temperature": 0}',
    reply=ANSWER.text,
    answered_model="gemini-2.5-flash-lite",
    outcome="ok",
    latency_s=0.5,
    prompt_tokens=900,
    completion_tokens=40,
    cost_usd=0.0001,
)


def changed(call, **values):
    """The call with some other values, as a record that is checked anew."""
    return Call(**vars(call) | values)


FAILURE = changed(
    CALL, reply=None, answered_model=None, outcome="error", problem="overloaded", status=503, cost_usd=None
)


def sql(location, statement, **values):
    """Run a statement on a store's database, behind its back; its rows, or how many it changed."""
    engine = sa.create_engine(str(location) if "://" in str(location) else f"sqlite:///{location}")
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else result.rowcount
    finally:
        engine.dispose()

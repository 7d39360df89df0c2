"""Calls to put into a store."""

from dataclasses import replace

from lvlm2p_wrappers.store import Answer, Call, Turn

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
ANSWER = Answer('{"probabilities": {"left": 1.0}}', "gemini/gemini-2.5-flash-lite")
CALL = Call(
    key="k",
    stage="action",
    env_id="MiniGrid-LavaGapS7-v0",
    requested_model="gemini/gemini-2.5-flash-lite",
    messages=(Turn("system", "You are a teacher. " * 50), Turn("user", "Mission: avoid the lava", PNG)),
    schema='{"type": "object"}',
    options='{"temperature": 0}',
    reply=ANSWER.text,
    answered_model="gemini-2.5-flash-lite",
    outcome="ok",
    latency_s=0.5,
    prompt_tokens=900,
    completion_tokens=40,
    cost_usd=0.0001,
)
FAILURE = replace(
    CALL, reply=None, answered_model=None, outcome="error", problem="overloaded", status=503, cost_usd=None
)

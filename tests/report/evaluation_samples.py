"""Evaluation folders with what the embedded teacher really says, some of it wrong on purpose."""

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers import BadReplyError, Teacher
from lvlm2p_wrappers.evaluation.ground_truth import truth_of
from lvlm2p_wrappers.store import Store, calls
from lvlm2p_wrappers.views import viewer

MODEL = "embedded/minigrid-planner?error=0.3&misread=0.4&salt=2"
HEADINGS = ("right", "down", "left", "up")


def write_folder(folder, *, env_id="MiniGrid-LavaGapS5-v0", states=8, model=MODEL, complete=True):
    """An evaluation of ``states`` states of random walks, in the format that `lvlm2p evaluate` writes."""
    (folder / "pictures").mkdir(parents=True)
    labels = [_label(folder, number, view, truth, model) for number, view, truth in _states(env_id, states)]
    write_lines(folder / "labels.jsonl", labels)
    episodes = [
        {"way": way, "seed": seed, "return": 0.9 * (seed != 3), "length": 11, "success": seed != 3, "failures": 0}
        for way in ("argmax", "sampled")
        for seed in range(5)
    ]
    write_lines(folder / "episodes.jsonl", episodes)
    evaluation = {
        "format": 1, "env_id": env_id, "model": model, "prompts": "minigrid", "fingerprint": "0123456789abcdef",
        "seed": 0, "states": states, "episodes": 5, "complete": complete, "card": card(),
    }  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def card():
    """A card with every number that there is."""
    rate = {"value": 0.75, "low": 0.6, "high": 0.86, "n": 12}
    played = {"success": {**rate, "value": 0.8125}, "return": {**rate, "value": 0.43}, "length": 11.5}
    names = ("agent_row", "agent_column", "cell", "heading", "targets", "hazards")
    headings = {true: {said: 7 * (true == said) + (true == "up" != said) for said in HEADINGS} for true in HEADINGS}
    bins = [{"low": 0.4, "high": 0.5, "confidence": 0.47, "accuracy": 0.4, "n": 5},
            {"low": 0.9, "high": 1.0, "confidence": 0.93, "accuracy": 0.71, "n": 7}]  # fmt: skip
    return {
        "episodes": {"argmax": played, "sampled": played},
        "stage1": {**dict.fromkeys(names, rate), "headings": headings},
        "stage2": {"agreement": rate, "mass_optimal": rate, "mass_fatal": {**rate, "value": 0.0625}, "entropy": 0.4375,
                   "ece": 0.1575, "reliability": bins},
        "replies": {"labels": 12, "failures": 3, "by_kind": {"json": 2, "sum": 1}, "bad_replies": 4},
        "price": {"usd_per_label": 0.00037, "latency_p50_s": 1.25, "latency_p95_s": 3.5, "prompt_tokens": 2961,
                  "completion_tokens": 187, "usd_20000_frames": 0.29},
    }  # fmt: skip


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def change_label(folder, number, **values):
    """Write one label anew, with other values."""
    labels = read_lines(folder / "labels.jsonl")
    labels[number] |= values
    write_lines(folder / "labels.jsonl", labels)


def _states(env_id, states):
    """Distinct views, each with what is really there."""
    env = gym.make(env_id)
    draw = np.random.default_rng(0)
    seen, seed = set(), 0
    env.reset(seed=seed)
    while len(seen) < states:
        view = viewer(env).view()
        if view.picture.digest not in seen:
            seen.add(view.picture.digest)
            yield len(seen) - 1, view, truth_of(env, view.env_info.actions).model_dump()
        _, _, terminated, truncated, _ = env.step(int(draw.integers(3)))
        if terminated or truncated:
            seed += 1
            env.reset(seed=seed)


def _label(folder, number, view, truth, model):
    (folder / "pictures" / f"{view.picture.digest}.png").write_bytes(view.picture.png)
    store = folder / "answers.sqlite"
    try:
        advice, failure = Teacher(model, store=store).advise(view), None
    except BadReplyError as error:
        advice, failure = None, {"kind": error.kind, "message": str(error)}
    with Store(store) as opened:
        held = [logged.call for logged in calls(opened)][::-1]
    store.unlink()
    return {
        "id": number, "source": ("random", "student", "expert")[number % 3], "seed": number // 4, "step": number,
        "picture": view.picture.digest, "mission": view.mission, "carrying": view.carrying,
        "actions": list(view.env_info.actions), "probs": advice and advice.probs.tolist(),
        "analysis": advice and json.loads(advice.analysis), "model": advice and advice.model,
        "cached": False, "failure": failure, "exchanges": [_exchange(call) for call in held], "truth": truth,
    }  # fmt: skip


def _exchange(call):
    kept = ("stage", "reply", "outcome", "problem", "latency_s", "prompt_tokens", "completion_tokens", "cost_usd")
    messages = [{"role": turn.role, "text": turn.text, "picture": turn.picture is not None} for turn in call.messages]
    return {name: getattr(call, name) for name in kept} | {"messages": messages, "model": call.answered_model}


HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "</style><style>body{display:none}</style>",
    "</pre></details></article><h1>owned</h1>",
    '" onmouseover="document.title=\'owned\'" autofocus onfocus="document.title=\'owned\'" x="',
    "' onclick='x' javascript:document.title='owned'",
    '<a href="javascript:document.title=1">a</a><iframe src="https://example.com"></iframe>',
    '<svg><use href="https://example.com/x.svg#a"/></svg><link rel=stylesheet href=https://example.com/x.css>',
    "{{ 7 * 7 }}{% for x in y %}{{ config }}{# no #}",
    "\u202egnp.exe\u202c \u2066isolated\u2069 \x00\x07\x1b[2J \ud800",
    "]]>--><!-- <![CDATA[ &lt;b&gt; &amp;amp;",
    "\n\n  first lines are kept\ttab\r\nend",
)
"""Texts that would do something, were they taken for anything but text."""


def spoil(folder, text):
    """Put a text wherever a model, a provider or an environment could have put it."""
    exchange = read_lines(folder / "labels.jsonl")[0]["exchanges"][0]
    spoilt = exchange | {
        "stage": text, "reply": text, "problem": text, "model": text, "outcome": "bad_reply",
        "messages": [{"role": text, "text": text, "picture": True}],
    }  # fmt: skip
    analysis = {"agent_row": 1, "agent_column": 1, "heading": "up", "carrying": text, "summary": text,
                "targets": [{"what": text, "row": 1, "column": 1}], "hazards": [], "obstacles": []}  # fmt: skip
    common = {"mission": text, "carrying": text, "model": text, "source": text, "exchanges": [spoilt]}
    change_label(folder, 0, **common, analysis=analysis)
    change_label(folder, 1, **common, analysis={text: text, "deep": [{text: text}]})
    change_label(folder, 2, **common, probs=None, failure={"kind": text, "message": text})
    change_label(folder, 3, actions=[text, *("abcdef")])
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation |= {"model": text, "env_id": text, "prompts": text, "fingerprint": text}
    evaluation["card"]["replies"]["by_kind"] = {text: 1}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


__all__ = ["HOSTILE", "MODEL", "card", "change_label", "read_lines", "replace", "spoil", "write_folder", "write_lines"]

"""Evaluation folders with what the embedded teacher really says, some of it wrong on purpose."""

import json

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.evaluation import EvaluationFolder, State, label_states
from lvlm2p_wrappers.evaluation.ground_truth import ground_truth
from lvlm2p_wrappers.records import (
    ActionMetrics,
    AnalysisMetrics,
    CalibrationBin,
    Episode,
    EvaluationArguments,
    Metrics,
    PriceMetrics,
    Rate,
    ReplyMetrics,
    RolloutMetrics,
)
from lvlm2p_wrappers.views import viewer

MODEL = "embedded/minigrid-planner?error=0.3&misread=0.4&salt=2"
HEADINGS = ("right", "down", "left", "up")


def write_folder(folder, *, env_id="MiniGrid-LavaGapS5-v0", states=8, model=MODEL, complete=True):
    """An evaluation of ``states`` states of random walks."""
    arguments = EvaluationArguments(
        env_id=env_id,
        model=model,
        prompts="minigrid",
        fingerprint="0123456789abcdef",
        seed=0,
        states=states,
        episodes=5,
    )
    with EvaluationFolder(folder, arguments) as writer:
        for label in label_states(Teacher(model), list(_states(env_id, states)), width=1):
            writer.add_label(label)
        for policy in ("argmax", "sampled"):
            for seed in range(5):
                reward = 0.9 * (seed != 3)
                writer.add_episode(
                    Episode(policy=policy, seed=seed, episodic_return=reward, length=11, success=reward > 0, failures=0)
                )
        writer.save(METRICS, complete=complete)
    return folder


def _metrics():
    """Metrics with every number that there is."""
    rate = Rate(value=0.75, low=0.6, high=0.86, n=12)
    rollouts = RolloutMetrics(
        success=rate.model_copy(update={"value": 0.8125}),
        episodic_return=rate.model_copy(update={"value": 0.43}),
        length=11.5,
    )
    aspects = ("agent_row", "agent_column", "cell", "heading", "pose", "targets", "hazards")
    headings = {true: {said: 7 * (true == said) + (true == "up" != said) for said in HEADINGS} for true in HEADINGS}
    bins = (
        CalibrationBin(low=0.4, high=0.5, confidence=0.47, accuracy=0.4, n=5),
        CalibrationBin(low=0.9, high=1.0, confidence=0.93, accuracy=0.71, n=7),
    )
    return Metrics(
        rollouts={"argmax": rollouts, "sampled": rollouts},
        analysis=AnalysisMetrics(**dict.fromkeys(aspects, rate), headings=headings),
        action=ActionMetrics(
            agreement=rate,
            mass_optimal=rate,
            mass_fatal=rate.model_copy(update={"value": 0.0625}),
            entropy=0.4375,
            ece=0.1575,
            reliability=bins,
        ),
        replies=ReplyMetrics(labels=12, failures=3, by_kind={"json": 2, "sum": 1}, bad_replies=4),
        price=PriceMetrics(
            usd_per_label=0.00037,
            latency_p50_s=1.25,
            latency_p95_s=3.5,
            prompt_tokens=2961,
            completion_tokens=187,
            usd_20000_frames=0.29,
        ),
    )


METRICS = _metrics()


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def change_label(folder, number, **values):
    """Write one label anew, with other values."""
    labels = read_lines(folder / "labels.jsonl")
    labels[number] |= values
    write_lines(folder / "labels.jsonl", labels)


def _states(env_id, count):
    """Distinct states of random walks, each with its ground truth."""
    env = gym.make(env_id)
    draw = np.random.default_rng(0)
    seen, seed = set(), 0
    env.reset(seed=seed)
    while len(seen) < count:
        view = viewer(env).view()
        if view.picture.digest not in seen:
            number = len(seen)
            seen.add(view.picture.digest)
            source = ("random", "noisy_expert", "expert")[number % 3]
            truth = ground_truth(env, view.env_info.actions)
            yield State(id=number, source=source, seed=number // 4, step=number, view=view, truth=truth)
        _, _, terminated, truncated, _ = env.step(int(draw.integers(3)))
        if terminated or truncated:
            seed += 1
            env.reset(seed=seed)


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
        "reply": text, "problem": text, "model": text, "outcome": "bad_reply",
        "messages": [{"role": "user", "text": text, "picture": "example"}],
    }  # fmt: skip
    analysis = {"agent_row": 1, "agent_column": 1, "heading": "up", "carrying": text, "summary": text,
                "targets": [{"what": text, "row": 1, "column": 1}], "hazards": [], "obstacles": []}  # fmt: skip
    common = {"mission": text, "carrying": text, "model": text, "exchanges": [spoilt]}
    change_label(folder, 0, **common, analysis=analysis)
    change_label(folder, 1, **common, analysis={text: text, "deep": [{text: text}]})
    change_label(folder, 2, **common, probs=None, failure={"kind": text, "message": text})
    change_label(folder, 3, actions=[text, *("abcdef")])
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation |= {"model": text, "env_id": text, "prompts": text, "fingerprint": text}
    evaluation["metrics"]["replies"]["by_kind"] = {text: 1}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))

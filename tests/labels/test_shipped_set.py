"""The label set that ships with the repository: small, readable, and enough to teach a student without a teacher."""

from pathlib import Path

import pytest
import torch

from lvlm2p_wrappers import Teacher, read_labels
from tests.algos.scripts import ppo_replay, train

pytest.importorskip("pyarrow", reason="label sets need the extra `labels`")

FOLDER = Path(__file__).parents[2] / "benchmarks/label_sets/MiniGrid-LavaGapS7-v0"


def test_it_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 300_000


def test_its_labels_are_what_the_embedded_teacher_says():
    """Who changes the teacher or the student's observation makes it anew, as docs/label_sets.md says."""
    labels = read_labels(FOLDER)
    views = [*labels.views()][::30]
    with Teacher(labels.info.model, prompts="minigrid-0.1", store=None) as teacher:  # those that it was made with
        said = teacher.label(views)
    assert [advice.probs.tolist() for advice in said] == labels.probs[::30].tolist()


def success(agent, envs, steps=100):
    """The share of episodes that end at the goal, with the most probable action."""
    obs, wins, ends = torch.as_tensor(envs.reset(seed=[*range(100, 108)])[0]), 0, 0
    for _ in range(steps):
        with torch.no_grad():
            actions = agent(obs)[0].argmax(-1)
        obs, reward, terminated, truncated, _ = envs.step(actions.numpy())
        obs = torch.as_tensor(obs)
        ends, wins = ends + (terminated | truncated).sum(), wins + (reward > 0).sum()
    return wins / max(ends, 1)


def test_a_student_learns_from_it_without_a_teacher_a_key_or_a_frame():
    torch.manual_seed(1)
    envs = ppo_replay.make_envs(ppo_replay.Args(num_envs=8, lam=0), "run")
    obs, probs = map(torch.as_tensor, read_labels(FOLDER).for_student(envs))
    agent = ppo_replay.Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    assert success(agent, envs) < 0.5
    for _ in range(200):
        rows = torch.randint(len(obs), (64,))
        student, _ = agent(obs[rows])
        loss = ppo_replay.distillation_loss(probs[rows], student, torch.ones(64, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert success(agent, envs) > 0.8


def test_a_script_learns_from_it_with_neither_key_nor_store_nor_teacher():
    """``--labels DIR --offline --store None``: the model is a paid one, and there is no key."""
    flags = {"env_id": "MiniGrid-LavaGapS7-v0", "model": "gemini/gemini-2.5-flash-lite", "store": None, "offline": True}
    summary, _ = train(ppo_replay, **flags, labels=str(FOLDER), replay_minibatches=8, samples_every=0)
    assert summary["global_step"] == 128
    assert (summary["teacher"]["labels"], summary["teacher"]["calls"]) == (0, 0)

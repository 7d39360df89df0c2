import importlib.util
import sys
import types

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import (
    AgentCentredObservation,
    ModelError,
    PromptError,
    StoreError,
    TeacherWrapper,
    UsageError,
    VectorTeacherWrapper,
)

ENV_ID, EMBEDDED = "MiniGrid-LavaGapS7-v0", "embedded/minigrid-planner"


def test_six_lines_give_a_distribution_without_key_network_or_render_mode():
    env = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED)
    _, info = env.reset(seed=0)
    probs = info["teacher_probs"]
    assert (probs.shape, probs.dtype) == ((7,), np.float32)
    assert probs.min() >= 0
    assert np.isclose(probs.sum(), 1)


def test_following_the_advice_reaches_the_goal():
    env = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED)
    _, info = env.reset(seed=3)
    reward, over = 0.0, False
    while not over:
        _, reward, terminated, truncated, info = env.step(int(info["teacher_probs"].argmax()))
        over = terminated or truncated
    assert reward > 0.9


def test_an_episode_that_is_over_gets_no_advice():
    env = TeacherWrapper(gym.make(ENV_ID, max_episode_steps=2), model=EMBEDDED)
    env.reset(seed=0)
    assert "teacher_probs" in env.step(0)[4]
    *_, truncated, info = env.step(0)
    assert truncated
    assert "teacher_probs" not in info


def structure(info):
    """What a recorder that stacks the infos of an episode compares: keys, shapes and dtypes."""
    return {key: (np.asarray(value).shape, np.asarray(value).dtype) for key, value in info.items()}


def test_recorders_get_infos_of_one_structure(tmp_path):
    """Recorders of infos, such as minari's, failed where an episode ends, since the advice is not there."""
    env = gym.make(ENV_ID, max_episode_steps=3)
    env = TeacherWrapper(env, EMBEDDED, always_in_info=True, budget_calls=2, store=tmp_path / "s.sqlite")
    infos = [env.reset(seed=0)[1], *(env.step(0)[4] for _ in range(3))]
    assert all(structure(info) == structure(infos[0]) for info in infos)
    assert [info["_teacher_probs"] for info in infos] == [True, False, False, False], "the budget, then the end"
    assert [float(info["teacher_probs"].sum()) for info in infos] == pytest.approx([1, 0, 0, 0])
    stacked = np.stack([info["teacher_probs"] for info in infos])
    assert (stacked.shape, stacked.dtype) == ((4, 7), np.float32)


def tree_map(function, tree, other=None):
    """What Minari takes of JAX, for where that is not installed: trees of another structure are refused."""
    if not isinstance(tree, dict):
        return function(tree) if other is None else function(tree, other)
    if other is not None and tree.keys() != other.keys():
        raise ValueError(f"pytree structure error: {[*tree]} and {[*other]}")
    return {key: tree_map(function, tree[key], *([other[key]] if other is not None else [])) for key in sorted(tree)}


@pytest.mark.parametrize("budget", [None, 4])
@pytest.mark.parametrize("outermost", ["recorder", "time limit"])
def test_minari_records_advice_and_mask_of_every_step(tmp_path, monkeypatch, budget, outermost):
    """Recording infos ended in "pytree structure error" at the end of an episode, where there is no advice."""
    minari = pytest.importorskip("minari", reason="recording needs minari")
    pytest.importorskip("pyarrow", reason="recording needs minari[arrow]")
    if importlib.util.find_spec("jax") is None:
        package, module = types.ModuleType("jax"), types.ModuleType("jax.tree_util")
        package.tree_util, module.tree_map = module, tree_map
        monkeypatch.setitem(sys.modules, "jax", package)
        monkeypatch.setitem(sys.modules, "jax.tree_util", module)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def record(**options):
        env = AgentCentredObservation(gym.make(ENV_ID, max_episode_steps=None if outermost == "time limit" else 3))
        env = TeacherWrapper(env, EMBEDDED, store=None, **options)
        if outermost == "time limit":
            env = gym.wrappers.TimeLimit(env, 3)
        env = minari.DataCollector(env, record_infos=True, data_format="arrow")
        told = []
        for seed in range(2):
            told.append(env.reset(seed=seed)[1])
            told += [env.step(0)[4] for _ in range(3)]
        return told, [*env.create_dataset("tests/advice-v0").iterate_episodes()]

    told, episodes = record(always_in_info=True, budget_calls=budget)
    for key in ("teacher_probs", "_teacher_probs"):
        recorded = np.concatenate([np.asarray(episode.infos[key]).reshape(4, -1) for episode in episodes])
        assert np.array_equal(recorded, np.array([info[key] for info in told]).reshape(8, -1))
    mask = [bool(has) for episode in episodes for has in np.ravel(episode.infos["_teacher_probs"])]
    ends = outermost == "time limit"  # outside the teacher it is not known to it
    assert mask == ([True, True, True, ends] * 2 if budget is None else [True, True, *[False] * 6])
    with pytest.raises(ValueError, match="structure"):
        record(budget_calls=2)


def test_a_vector_of_wrappers_with_infos_of_one_structure_equals_the_vector_wrapper():
    def make(**arguments):
        return lambda: TeacherWrapper(gym.make(ENV_ID, max_episode_steps=2), EMBEDDED, **arguments)

    def vector_of(*makers):
        return gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)

    wrapped = vector_of(make(always_in_info=True), make(always_in_info=True))
    around = VectorTeacherWrapper(vector_of(*[lambda: gym.make(ENV_ID, max_episode_steps=2)] * 2), EMBEDDED)
    steps = [(envs.reset(seed=5)[1], *(envs.step([0, 1])[4] for _ in range(4))) for envs in (wrapped, around)]
    masks = []
    for ours, theirs in zip(*steps, strict=True):
        for key in ("teacher_probs", "_teacher_probs"):
            assert np.array_equal(ours[key], theirs[key])
            assert ours[key].dtype == theirs[key].dtype
        masks.append(ours["_teacher_probs"].all())
    assert masks == [True, True, False, True, True]


def test_observations_rewards_and_actions_pass_unchanged():
    plain, taught = gym.make(ENV_ID), TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED)
    assert np.array_equal(plain.reset(seed=1)[0]["image"], taught.reset(seed=1)[0]["image"])
    for action in (2, 1, 2, 0):
        one, two = plain.step(action), taught.step(action)
        assert np.array_equal(one[0]["image"], two[0]["image"])
        assert one[1:4] == two[1:4]


def test_the_spec_rebuilds_the_wrapped_env(tmp_path):
    env = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED, store=tmp_path / "other.sqlite", concurrency=3)
    again = gym.make(env.spec)
    assert isinstance(again, TeacherWrapper)
    assert again.teacher is env.teacher
    assert np.array_equal(again.reset(seed=0)[1]["teacher_probs"], env.reset(seed=0)[1]["teacher_probs"])


def test_whoever_changes_an_info_changes_nobody_elses():
    env = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED)
    first = env.reset(seed=0)[1]["teacher_probs"]
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(env.reset(seed=0)[1]["teacher_probs"], kept)


def test_a_run_on_a_warm_store_makes_no_calls(tmp_path):
    from lvlm2p_wrappers import Teacher

    def play():
        env = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED, store=tmp_path / "warm.sqlite")
        _, info = env.reset(seed=0)
        for action in (1, 2, 2, 0, 2, 1):
            info = env.step(action)[4]
        return info["teacher_probs"], env.teacher.counters

    probs, cold = play()
    Teacher._shared.clear()  # as a new process begins
    again, warm = play()
    assert np.array_equal(probs, again)
    assert cold.calls == 2 * cold.distinct_views > 0
    assert (warm.calls, warm.cached, warm.labels) == (0, 7, 7)


def test_wrappers_with_the_same_arguments_share_one_teacher():
    one, two = (TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED) for _ in range(2))
    explicit = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED, store="default", concurrency=16, fallback_models=[])
    other = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED + "?tau=1")
    assert one.teacher is two.teacher is explicit.teacher
    assert one.teacher is not other.teacher


def test_a_history_reaches_the_templates_where_the_prompt_set_asks_for_it(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "set.toml").write_text("stages = 1\nhistory = 2\n")
    (folder / "action.system.jinja").write_text("x")
    (folder / "action.user.jinja").write_text("{{ history }}")
    (folder / "repair.jinja").write_text("{{ problem }}")
    env = TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED, prompts=folder, store=tmp_path / "s.sqlite")
    env.reset(seed=0)
    for action in (0, 1, 0):
        env.step(action)
    from lvlm2p_wrappers.store import Store, calls

    told = [call.call.messages[-1].text for call in calls(Store(tmp_path / "s.sqlite"))]
    assert told == ["['turn_right', 'turn_left']", "['turn_left', 'turn_right']", "['turn_left']", "[]"]


# Bad input: one short message that names the value and the way out.


def make():
    return gym.make(ENV_ID)


def vector(env, **arguments):
    return VectorTeacherWrapper(gym.vector.SyncVectorEnv([lambda: env]), **arguments)


@pytest.mark.parametrize("wrap", [TeacherWrapper, vector])
@pytest.mark.parametrize(
    ("env", "arguments", "error", "message"),
    [
        (lambda: gym.make("Pendulum-v1", render_mode="rgb_array"), {}, UsageError, "Pendulum-v1 .* Box"),
        (lambda: gym.make("CartPole-v1"), {}, UsageError, "CartPole-v1 gives no picture: .*render_mode='rgb_array'"),
        (make, {"model": "gpt5"}, ModelError, "'gpt5' names no provider .*provider/model, such as"),
        (make, {"model": "openai/gpt-4o-mini"}, ModelError, "set OPENAI_API_KEY in the environment"),
        (make, {"model": "gemini/gemini-2.5-flash-lite"}, ModelError, "needs a key: set .*GEMINI_API_KEY"),
        (make, {"model": "gemini-2.5-flash-lite"}, ModelError, "write 'gemini/gemini-2.5-flash-lite'"),
        (make, {"model": "hosted_vllm/some-model"}, ModelError, "set HOSTED_VLLM_API_BASE"),
        (make, {"model": EMBEDDED + "?eror=1"}, ModelError, "eror='1': there is no such option.*error"),
        (make, {"prompts": "no/such/folder"}, PromptError, "folder 'no/such/folder'.*minigrid"),
        (make, {"store": "/proc/nowhere/s.sqlite"}, StoreError, "/proc/nowhere/s.sqlite"),
        (make, {"concurrency": 0}, UsageError, "concurrency must be greater than 0, not 0"),
        (make, {"budget_usd": -1}, UsageError, "budget_usd must be greater than or equal to 0, not -1"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_short_message_with_the_way_out(wrap, env, arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        wrap(env(), **{"model": EMBEDDED, **arguments}).reset(seed=0)
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)


def test_a_typo_in_a_template_names_the_template_the_line_and_the_variables(tmp_path):
    (tmp_path / "action.user.jinja").write_text("one\n{{ mision }}")
    with pytest.raises(
        PromptError, match=r"action\.user\.jinja, line 2: 'mision' is undefined; the variables are .*mission"
    ):
        TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED, prompts=tmp_path)


def test_advice_already_in_info_is_refused():
    env = TeacherWrapper(TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED), model=EMBEDDED)
    with pytest.raises(UsageError, match="info already has 'teacher_probs'"):
        env.reset(seed=0)


@pytest.mark.parametrize("wrap", [TeacherWrapper, vector])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "rasie"}, "on_error must be 'raise' or 'skip', not 'rasie'"),
        ({"fallback_models": "openai/gpt-4o"}, "fallback_models must be a list of model strings"),
        ({"budget_usd": float("nan")}, "budget_usd must be a finite number, not nan"),
    ],
)
def test_a_value_that_would_be_taken_for_another_is_refused(wrap, arguments, message):
    with pytest.raises(UsageError, match=message):
        wrap(make(), model=EMBEDDED, **arguments)


def test_a_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="consurrency"):
        TeacherWrapper(gym.make(ENV_ID), model=EMBEDDED, consurrency=3)

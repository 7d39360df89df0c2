"""The vector wrapper against the single one, on a provider whose answer differs from picture to picture."""

import signal
import threading
import time
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from lvlm2p_wrappers import TeacherWrapper, TransportError, UsageError, VectorTeacherWrapper
from lvlm2p_wrappers.client import submit
from tests.provider import FAULTS

ENV_ID, MODEL, NUM_ENVS, STEPS = "MiniGrid-LavaGapS5-v0", "openai/gpt-4o-mini", 3, 60
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


def vector(mode, kind=SyncVectorEnv, wrap=lambda env: env):
    options = {"shared_memory": False} if kind is AsyncVectorEnv else {}
    return kind([lambda: wrap(gym.make(ENV_ID))] * NUM_ENVS, autoreset_mode=mode, **options)


def play(envs, steps=STEPS):
    """What each reset and step returns, with seeded actions that end episodes often."""
    actions = np.random.default_rng(0).choice([0, 1, 2, 2, 2], size=(steps, NUM_ENVS))
    obs, infos = envs.reset(seed=7)
    yield obs["image"], None, np.zeros(NUM_ENVS, bool), infos
    for action in actions:
        obs, reward, terminated, truncated, infos = envs.step(action)
        yield obs["image"], reward, terminated | truncated, infos


def advice(infos):
    """Advice and mask as SyncVectorEnv collects them from single wrappers: absent where no sub-environment has any."""
    empty = np.zeros((NUM_ENVS, 7), np.float32), np.zeros(NUM_ENVS, bool)
    return infos.get("teacher_probs", empty[0]), infos.get("_teacher_probs", empty[1])


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", MODES)
def test_wrapping_the_vector_equals_a_vector_of_wrapped_envs(provider, mode, kind):  # noqa: ARG001
    ours = VectorTeacherWrapper(vector(mode, kind), MODEL)
    theirs = vector(mode, wrap=lambda env: TeacherWrapper(env, MODEL))
    ended = 0
    for (obs, reward, done, infos), (obs2, reward2, done2, infos2) in zip(play(ours), play(theirs), strict=True):
        assert np.array_equal(obs, obs2)
        assert np.array_equal(reward, reward2)
        assert np.array_equal(done, done2)
        for array, array2 in zip(advice(infos), advice(infos2), strict=True):
            assert np.array_equal(array, array2)
        ended += int(done.sum())
    assert ended > 5
    ours.close()


@pytest.mark.parametrize("mode", MODES)
def test_advice_and_mask_are_always_there_and_rows_without_advice_are_zero(provider, mode):  # noqa: ARG001
    masks = []
    for _, _, done, infos in play(VectorTeacherWrapper(vector(mode), MODEL)):
        probs, mask = infos["teacher_probs"], infos["_teacher_probs"]
        assert (probs.shape, probs.dtype, mask.shape, mask.dtype) == ((NUM_ENVS, 7), np.float32, (NUM_ENVS,), bool)
        assert np.allclose(probs.sum(-1), mask)
        assert np.array_equal(mask, np.ones_like(done) if mode is AutoresetMode.SAME_STEP else ~done)
        masks.append(mask)
    assert np.mean(masks) > 0.7


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", MODES)
def test_gathered_rows_are_what_infos_held_for_the_observation_acted_on(provider, mode, kind):  # noqa: ARG001
    at_once = [advice(infos) for *_, infos in play(VectorTeacherWrapper(vector(mode), MODEL))]
    deferred = VectorTeacherWrapper(vector(mode, kind), MODEL, defer=True)
    gathered = []
    for step, (*_, infos) in enumerate(play(deferred)):
        assert not infos["_teacher_probs"].any()
        if step in (0, 1, 20, 21, STEPS):
            gathered.append(deferred.gather())
    deferred.close()
    assert [len(mask) for _, mask in gathered] == [0, 1, 19, 1, STEPS - 21]
    # Row t is the observation from which step t's action was chosen; the last one waits for the next gather.
    for row, array in enumerate(np.concatenate(parts) for parts in zip(*gathered, strict=True)):
        assert np.array_equal(array, np.array([rows[row] for rows in at_once[:-1]]))


def test_reset_drops_the_rows_not_yet_gathered(provider):  # noqa: ARG001
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True)
    envs.reset(seed=0)
    envs.step(np.zeros(NUM_ENVS, int))
    envs.reset(seed=0)
    probs, mask = envs.gather()
    assert (probs.shape, mask.shape) == ((0, NUM_ENVS, 7), (0, NUM_ENVS))
    envs.step(np.zeros(NUM_ENVS, int))
    assert envs.gather()[1].all()


def test_asking_by_hand_asks_only_about_the_chosen_observations(provider):
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True, ask="manual")
    envs.reset(seed=0)
    envs.ask(np.array([True, False, False]))
    envs.step(np.zeros(NUM_ENVS, int))
    envs.step(np.zeros(NUM_ENVS, int))
    envs.ask(np.array([False, False, True]))
    envs.step(np.zeros(NUM_ENVS, int))
    _, mask = envs.gather()
    assert mask.tolist() == [[True, False, False], [False, False, False], [False, False, True]]
    assert envs.teacher.counters.distinct_views == 2
    assert len(provider.log) == 4


def test_a_terminal_observation_cannot_be_asked_about(provider):  # noqa: ARG001
    envs = VectorTeacherWrapper(vector(AutoresetMode.NEXT_STEP), MODEL, defer=True, ask="manual")
    for _, _, done, _ in play(envs):
        envs.ask(np.ones(NUM_ENVS, bool))
        if done.any():
            break
    envs.step(np.zeros(NUM_ENVS, int))
    _, mask = envs.gather()
    assert np.array_equal(mask[-1], ~done)


@pytest.mark.parametrize("mask", [[True, False], [1, 0, 1], np.ones((NUM_ENVS, 1), bool)])
def test_a_mask_of_another_shape_or_dtype_is_refused(provider, mask):  # noqa: ARG001
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True, ask="manual")
    envs.reset(seed=0)
    with pytest.raises(UsageError, match=r"mask must be bool of shape \(3,\)"):
        envs.ask(mask)


def test_an_error_is_raised_after_everything_else_has_been_answered_and_stored(provider):
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True, max_retries=0)
    provider.faults = [FAULTS["500"]]
    provider.latency = 0.2
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(np.ones(NUM_ENVS, int))
    with pytest.raises(TransportError, match="HTTP 500"):
        envs.gather()
    assert provider.in_flight == 0
    views, answered = envs.teacher.counters.distinct_views, len(provider.answers)
    assert answered == 2 * (views - 1)
    again = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True)
    again.reset(seed=0)
    for _ in range(3):
        again.step(np.ones(NUM_ENVS, int))
    assert again.gather()[1].all()
    assert len(provider.answers) == 2 * views


def test_skipping_masks_the_row_that_failed_and_counts_it(provider):
    envs = VectorTeacherWrapper(
        vector(AutoresetMode.SAME_STEP), MODEL, defer=True, on_error="skip", max_retries=0, concurrency=1
    )
    provider.faults = [FAULTS["500"]]
    envs.reset(seed=0)
    envs.step(np.ones(NUM_ENVS, int))
    probs, mask = envs.gather()
    assert mask[0, :2].tolist() == [False, True]
    assert not probs[0, 0].any()
    assert envs.teacher.counters.failures == 1


def test_a_step_waits_while_more_questions_are_open_than_allowed(provider):
    provider.latency = 0.05
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True, max_pending=2, concurrency=64)
    for _ in play(envs, steps=5):
        assert provider.in_flight <= 2
    assert envs.gather()[1].all()


def test_closing_one_wrapper_leaves_the_rows_of_another_with_the_same_teacher_alone(provider):
    provider.latency = 0.1
    training, evaluation = (
        VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True, concurrency=2) for _ in range(2)
    )
    assert training.teacher is evaluation.teacher
    training.reset(seed=0)
    evaluation.reset(seed=50)
    for _ in range(3):
        training.step(np.ones(NUM_ENVS, int))
        evaluation.step(np.ones(NUM_ENVS, int))
    evaluation.close()
    assert training.gather()[1].all()
    assert training.teacher.counters.unasked == 0


def test_ctrl_c_while_advice_is_gathered_loses_no_row_and_counts_none_twice(provider):
    """Gathering again after Ctrl-C counted the labels again that were there before it."""
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, defer=True)
    envs.reset(seed=0)
    envs.step(np.ones(NUM_ENVS, int))
    provider.latency = 1.0
    envs.step(np.ones(NUM_ENVS, int))
    threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        envs.gather()
    probs, mask = envs.gather()
    assert probs.shape[:2] == (2, NUM_ENVS)
    assert mask.all()
    assert envs.teacher.counters.labels == mask.sum(), "rows that had been waited for before Ctrl-C count once"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_pending": 0}, "max_pending must be at least 1, not 0"),
        ({"ask": "sometimes", "defer": True}, "ask must be 'all' or 'manual', not 'sometimes'"),
        ({"ask": "manual"}, "goes with defer=True"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL, **arguments)


def test_gather_and_ask_go_with_deferred_advice():
    envs = VectorTeacherWrapper(vector(AutoresetMode.SAME_STEP), MODEL)
    with pytest.raises(UsageError, match="defer=True"):
        envs.gather()
    with pytest.raises(UsageError, match="defer=True"):
        envs.ask(np.ones(NUM_ENVS, bool))


def test_resetting_by_hand_is_refused_since_rows_would_not_belong_to_observations():
    with pytest.raises(UsageError, match=r"autoreset_mode=.*SAME_STEP or NEXT_STEP"):
        VectorTeacherWrapper(vector(AutoresetMode.DISABLED), MODEL)


def test_a_second_teacher_around_the_first_is_refused(provider):  # noqa: ARG001
    inner = vector(AutoresetMode.SAME_STEP, wrap=lambda env: TeacherWrapper(env, MODEL))
    with pytest.raises(UsageError, match="already has 'teacher_probs'"):
        VectorTeacherWrapper(inner, MODEL).reset(seed=0)


def test_a_vector_env_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="CartPoleVectorEnv gives no access"):
        VectorTeacherWrapper(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"), MODEL)


@pytest.mark.slow
def test_open_questions_take_little_memory_also_while_nobody_reads_them(provider):
    fns = [lambda: gym.make("MiniGrid-Fetch-6x6-N2-v0")] * NUM_ENVS
    envs = SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP)
    envs = VectorTeacherWrapper(envs, MODEL, defer=True, concurrency=1)
    envs.reset(seed=0)
    envs.step([0] * NUM_ENVS)
    envs.gather()  # LiteLLM is there
    provider.latency, picture = 1.0, 8 * 32 * 8 * 32 * 3

    async def busy():
        time.sleep(3.0)

    tracemalloc.start()
    try:
        submit(busy())
        for seed in range(40):
            envs.reset(seed=10 + seed * NUM_ENVS)
        assert tracemalloc.get_traced_memory()[1] < 50 * picture
        assert envs.teacher.counters.distinct_views > 100
        deadline = time.monotonic() + 20
        while tracemalloc.get_traced_memory()[0] > 20 * picture and time.monotonic() < deadline:
            time.sleep(0.05)
        assert tracemalloc.get_traced_memory()[0] < 20 * picture
    finally:
        tracemalloc.stop()
    envs.close()

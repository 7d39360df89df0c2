"""The page on a store: its calls, gathered by what was shown."""

import json

import gymnasium as gym
import pytest

from lvlm2p_wrappers import BadReplyError, Teacher
from lvlm2p_wrappers.records import Message
from lvlm2p_wrappers.report import from_store, render
from lvlm2p_wrappers.report.annotations import reply_verdict
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.store import Store
from lvlm2p_wrappers.views import viewer
from tests.report.html_tree import parse
from tests.store.store_samples import ANSWER, CALL, FAILURE, PNG, changed

PICTURES = [PNG, PNG + b"2", PNG + b"3"]


def asked(number=0, **values):
    """A call about one of three pictures."""
    user = Message(
        "user", "Mission: avoid the lava\nCarrying: nothing\nThe picture shows it.", SavedPicture(PICTURES[number])
    )
    return changed(CALL, key=f"k{number}", messages=(CALL.messages[0], user), schema_text=SCHEMA, **values)


SCHEMA = json.dumps({"properties": {"probabilities": {"required": ["left", "right"]}}})
REPLY = '{"reasoning": "so", "probabilities": {"left": 0.25, "right": 0.75}}'


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "log.sqlite") as store:
        yield store


def test_what_the_embedded_teacher_said_is_shown_with_its_pictures(tmp_path):
    file = tmp_path / "log.sqlite"
    teacher = Teacher("embedded/minigrid-planner", store=file)
    envs = [gym.make(env_id) for env_id in ("MiniGrid-LavaGapS5-v0", "BabyAI-GoToRedBall-v0")]
    advice = []
    for env in envs:
        env.reset(seed=0)
        advice.append(teacher.advise(viewer(env).view()))
    with Store(file) as store:
        report = from_store(store)
    last, first = report.labels
    assert (first.env_id, last.env_id) == ("MiniGrid-LavaGapS5-v0", "BabyAI-GoToRedBall-v0")
    assert (last.mission, last.carrying) == (envs[1].unwrapped.mission, "nothing")
    assert [exchange.stage for exchange in last.exchanges] == ["analysis", "action"]
    for label, answer in zip(report.labels, reversed(advice), strict=True):
        # The log holds the actions that were asked about: the others have nothing.
        assert label.probs == pytest.approx(answer.probs.tolist()[: len(label.probs)])
        assert answer.probs[len(label.probs) :].sum() == 0
        assert label.analysis == json.loads(answer.analysis)
    page = parse(render(report))
    assert len(list(page.all("image"))) == len(list(page.all("g", kind="marks"))) == 2
    assert not list(page.all("section", kind="card"))
    assert {select["name"] for select in page.all("select")} >= {"env"}


def test_calls_about_one_picture_are_one_view_and_models_are_held_apart(store):
    store.record(asked(0, stage="analysis", reply="bad", outcome="bad_reply", problem="json: there is none"))
    store.record(asked(0, stage="analysis", reply='{"summary": "lava"}'))
    store.record(asked(1, reply=REPLY, requested_model="openai/gpt-4o-mini"))
    store.record(asked(0, reply=REPLY, requested_model="openai/gpt-4o-mini"))
    store.record(asked(0, reply=REPLY))
    labels = from_store(store).labels
    assert [(label.model, len(label.exchanges)) for label in labels] == [
        (CALL.requested_model, 3),
        ("openai/gpt-4o-mini", 1),
        ("openai/gpt-4o-mini", 1),
    ]
    gemini = labels[0]
    assert [exchange.call for exchange in gemini.exchanges] == [1, 2, 5]
    assert (gemini.actions, gemini.probs, gemini.analysis) == (("left", "right"), (0.25, 0.75), {"summary": "lava"})
    assert (reply_verdict(gemini), gemini.failure) == ("bad reply", None)


def test_a_view_without_an_answer_says_what_came_instead(store):
    store.record(asked(0, reply="no", outcome="bad_reply", problem="sum: they sum to 7"))
    store.record(changed(FAILURE, messages=asked(1).messages))
    store.record(asked(2, stage="analysis", reply='{"summary": "lava"}'))
    unasked, failed, bad = from_store(store).labels
    assert (bad.failure.kind, bad.failure.message, reply_verdict(bad)) == ("sum", "they sum to 7", "bad reply")
    assert (failed.failure.kind, failed.failure.message, reply_verdict(failed)) == ("HTTP 503", "overloaded", "error")
    assert (unasked.failure, unasked.probs, reply_verdict(unasked)) == (None, None, "ok")
    assert "None: the question has no answer." in parse(render(from_store(store))).words


def test_a_second_stage_without_a_picture_is_found_by_the_analysis_that_it_quotes(store):
    analysis = ANSWER._replace(text='{"summary":"lava ahead"}')
    told = "Mission: avoid the lava\nCarrying: nothing\n"
    blind = tuple(Message("user", told + f"Analysis: {text}") for text in (analysis.text, '{"summary":"none"}'))
    store.record(asked(0, stage="analysis", reply=analysis.text), analysis)
    store.record(changed(asked(), key="b", reply=REPLY, messages=blind[:1]))
    store.record(changed(asked(), key="c", reply=REPLY, messages=blind[1:]))
    whole, lone = sorted(from_store(store).labels, key=lambda label: label.picture is None)
    assert [exchange.call for exchange in whole.exchanges] == [1, 2]
    assert whole.probs == (0.25, 0.75)
    assert [exchange.call for exchange in lone.exchanges] == [3]
    assert "No picture was sent." in parse(render(from_store(store))).words


def test_the_last_views_of_some_environments_are_chosen(store):
    for number in (0, 1, 2, 0):
        store.record(asked(number, reply=REPLY, env_id=f"Env-{number}"))
    ids = [label.env_id for label in from_store(store, last=2).labels]
    assert ids == ["Env-0", "Env-2"]
    assert len(from_store(store, last=2).labels[0].exchanges) == 2  # the older call about the same view, too
    assert [label.env_id for label in from_store(store, env="*-[12]").labels] == ["Env-2", "Env-1"]


def test_the_view_is_the_last_picture_of_a_conversation(store):
    example = Message("user", "Mission: an example", SavedPicture(PICTURES[2]))
    for number in (0, 1):
        call = asked(number, reply=REPLY)
        store.record(changed(call, messages=(call.messages[0], example, call.messages[1])))
    labels = from_store(store).labels
    assert len(labels) == 2
    assert {label.mission for label in labels} == {"avoid the lava"}


def test_a_bad_reply_of_a_real_conversation_is_shown(tmp_path, provider):
    provider.answer = lambda _: "<b>I would rather not</b>"
    env = gym.make("MiniGrid-LavaGapS5-v0")
    env.reset(seed=0)
    file = tmp_path / "log.sqlite"
    with pytest.raises(BadReplyError):
        Teacher("openai/gpt-4o-mini", store=file).advise(viewer(env).view())
    with Store(file) as store:
        report = from_store(store)
    page = parse(render(report))
    assert [exchange.outcome for exchange in report.labels[0].exchanges] == ["bad_reply", "bad_reply"]
    assert page.words.count("reply 25 characters <b>I would rather not</b> Cannot be used: ") == 2

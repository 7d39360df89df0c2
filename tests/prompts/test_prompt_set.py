import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.errors import PromptError
from lvlm2p_wrappers.prompts import PromptSet, bundled_prompts
from lvlm2p_wrappers.views import EnvInfo, viewer, with_lines
from tests.provider import WIRES

ANALYSIS = '{"agent_row": 1}'
ASKED = ["turn_left", "turn_right", "forward"]  # in LavaGap, under the names that the model is told


def view_of(env_id, **kwargs):
    env = gym.make(env_id, **kwargs)
    env.reset(seed=0)
    return viewer(env).view()


def lava():
    return view_of("MiniGrid-LavaGapS7-v0")


def own(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return PromptSet(folder, "minigrid")


def text_of(question):
    return "\n".join(message.text for message in question.messages)


@pytest.mark.parametrize(
    ("env_id", "rule"),
    [
        ("MiniGrid-LavaGapS7-v0", "lava"),
        ("MiniGrid-Dynamic-Obstacles-6x6-v0", "wall"),
        ("MiniGrid-Fetch-6x6-N2-v0", "other thing"),
        ("MiniGrid-GoToDoor-6x6-v0", "done"),
        ("MiniGrid-DoorKey-8x8-v0", "key"),
        ("MiniGrid-MemoryS7-v0", ""),
        ("BabyAI-GoToRedBall-v0", ""),
    ],
)
def test_both_stages_state_mission_carried_object_rules_and_every_action(env_id, rule):
    view = view_of(env_id)
    prompts = PromptSet(None, "minigrid")
    asked = prompts.action(view, ANALYSIS).schema.json["properties"]["probabilities"]["required"]
    for question in (prompts.analysis(view), prompts.action(view, ANALYSIS)):
        assert f"Mission: {view.mission}" in question.messages[-1].text
        assert ("Carrying: nothing" in question.messages[-1].text) == ("pickup" in asked)
        assert rule in question.messages[0].text.lower()
        assert question.messages[-1].picture == with_lines(view.picture)
    assert all(f"- {name}: " in prompts.action(view, ANALYSIS).messages[0].text for name in asked)


def test_the_four_task_families_are_told_different_rules():
    prompts = PromptSet(None, "minigrid")
    ids = [
        "MiniGrid-LavaGapS7-v0",
        "MiniGrid-Dynamic-Obstacles-6x6-v0",
        "MiniGrid-Fetch-6x6-N2-v0",
        "MiniGrid-GoToDoor-6x6-v0",
    ]
    rules = {
        prompts.options.rules[next(p for p in prompts.options.rules if p.removesuffix("*") in i and p != "*")]
        for i in ids
    }
    assert len(rules) == 4


def test_the_rotation_table_is_stated_for_every_heading():
    text = PromptSet(None, "minigrid").action(lava(), ANALYSIS).messages[0].text
    for row in ("| up | row - 1 | left | right |", "| right | column + 1 | up | down |",
                "| down | row + 1 | right | left |", "| left | column - 1 | down | up |"):  # fmt: skip
        assert row in text


def test_the_text_is_the_same_wherever_things_are():
    env = gym.make("MiniGrid-LavaGapS7-v0")
    prompts, texts = PromptSet(None, "minigrid"), set()
    for seed in range(10):
        env.reset(seed=seed)
        view = viewer(env).view()
        texts.add((text_of(prompts.analysis(view)), text_of(prompts.action(view, ANALYSIS))))
    assert len(texts) == 1


def test_the_analysis_reaches_the_second_stage():
    assert f"Analysis: {ANALYSIS}" in PromptSet(None, "minigrid").action(lava(), ANALYSIS).messages[-1].text


def test_the_reply_form_is_in_the_text_too_since_some_providers_ignore_it():
    question = PromptSet(None, "minigrid").action(lava(), ANALYSIS)
    assert '"probabilities"' in question.messages[0].text
    assert list(question.schema.json["properties"]["probabilities"]["properties"]) == ASKED


def test_the_form_of_a_reply_is_told_in_short_and_the_schema_where_it_is_of_ones_own(tmp_path):
    schema = '{"type": "object", "properties": {"n": {"anyOf": [{"type": "integer"}]}}}'
    (tmp_path / "analysis.schema.json").write_text(schema)
    told = own(tmp_path).analysis(lava())
    assert told.schema.text in told.messages[0].text
    (tmp_path / "analysis.schema.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    assert '{"n": integer}' in own(tmp_path).analysis(lava()).messages[0].text


def test_an_action_that_the_task_has_no_use_for_is_not_asked_about_and_gets_nothing():
    advice = Teacher("embedded/minigrid-planner", store=None).advise(lava())
    names = lava().env_info.actions
    assert (
        dict(zip(names, advice.probs, strict=True)).items() >= {"pickup": 0, "drop": 0, "toggle": 0, "done": 0}.items()
    )
    assert advice.probs.sum() == pytest.approx(1)


def test_actions_that_an_env_does_not_have_are_not_mentioned_as_such():
    question = PromptSet(None, "minigrid").action(view_of("MiniGrid-Dynamic-Obstacles-6x6-v0"), ANALYSIS)
    assert list(question.schema.json["properties"]["probabilities"]["properties"]) == ASKED
    assert '"toggle"' not in text_of(question)


@pytest.mark.parametrize(
    ("env_id", "names"),
    [
        ("FrozenLake-v1", ["left", "down", "right", "up"]),
        ("Taxi-v4", None),
        ("CliffWalking-v1", ["up", "right", "down", "left"]),
        ("CartPole-v1", ["push_left", "push_right"]),
    ],
)
def test_the_default_set_names_the_actions_of_well_known_envs(env_id, names):
    if env_id not in gym.registry:
        pytest.skip(f"{env_id} is not in this Gymnasium")
    view = view_of(env_id, render_mode="rgb_array")
    prompts = PromptSet(None, "default")
    named = [action.name for action in prompts.actions(view.env_info)]
    assert named == names or (names is None and len(set(named)) == 6 and "action_0" not in named)
    assert all(name in text_of(prompts.action(view, '{"summary": "x"}')) for name in named)


def test_an_unknown_env_falls_back_to_numbered_actions():
    env_info = EnvInfo("MyOwnEnv-v0", "default", ("action_0", "action_1"))
    prompts = PromptSet(None, "default")
    assert [action.name for action in prompts.actions(env_info)] == ["action_0", "action_1"]
    prompts.check(env_info)


def test_a_file_of_the_users_wins_and_the_rest_falls_through(tmp_path):
    prompts = own(tmp_path, action__user__jinja="Mine: {{ mission }}")
    assert prompts.action(lava(), ANALYSIS).messages[-1].text.startswith("Mine: avoid the lava")
    assert (
        prompts.action(lava(), ANALYSIS).messages[0].text
        == PromptSet(None, "minigrid").action(lava(), ANALYSIS).messages[0].text
    )


def test_a_users_rules_partial_is_included_by_the_bundled_templates(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "lava.jinja").write_text("Lava is lovely.")
    assert "Lava is lovely." in text_of(own(tmp_path).analysis(lava()))


def test_options_are_merged_one_by_one(tmp_path):
    prompts = own(
        tmp_path,
        set__toml='stages = 1\n[sampling]\nmax_tokens = 77\n[rules]\n"MiniGrid-Lava*" = "mine.jinja"\n',
        mine__jinja="My rule.",
    )
    assert prompts.options.stages == 1
    assert prompts.options.sampling.max_tokens == 77
    assert prompts.options.sampling.temperature == 0.0
    assert prompts.options.actions["forward"]
    assert "My rule." in text_of(prompts.action(lava(), ""))


def test_the_picture_can_be_left_out_of_the_second_stage_but_not_of_the_only_one(tmp_path):
    prompts = own(tmp_path, set__toml="picture_in_action = false")
    assert prompts.action(lava(), ANALYSIS).messages[-1].picture is None
    assert prompts.action(lava(), "").messages[-1].picture is not None


def test_a_users_own_schema_is_asked_for_and_checked(tmp_path):
    prompts = own(
        tmp_path,
        analysis__schema__json='{"type": "object", "properties": {"danger": {"type": "boolean"}}, '
        '"required": ["danger"]}',
    )
    question = prompts.analysis(lava())
    assert question.schema.json["required"] == ["danger"]
    assert question.read('{"danger": false}') == '{"danger": false}'


def test_a_bundled_set_can_be_named():
    assert PromptSet("default", "minigrid").folders == [bundled_prompts() / "default"]


def test_a_folder_can_stand_on_another_bundled_set_than_the_one_that_fits(tmp_path):
    """Templates that were written for the analysis of version 0.1.0 go on with it."""
    prompts = own(tmp_path, set__toml='base = "minigrid-0.1"', action__user__jinja="Mine.")
    theirs = PromptSet("minigrid-0.1", "minigrid")
    assert prompts.analysis(lava()).messages == theirs.analysis(lava()).messages
    assert prompts.action(lava(), ANALYSIS).messages[-1].text == "Mine."
    assert prompts.analysis(lava()).messages[-1].picture is not None


@pytest.mark.parametrize("base", ['"minigrid-9"', "7", '"../minigrid"'])
def test_a_base_that_is_no_bundled_set_is_named(tmp_path, base):
    with pytest.raises(PromptError, match=r"set\.toml: base: there is no bundled set .*; there are default, "):
        own(tmp_path, set__toml=f"base = {base}")


@pytest.mark.parametrize("name", ["left", "turn_left"])
def test_an_example_may_name_actions_as_the_environment_does_or_as_the_model_is_told(tmp_path, name):
    table = f'[[example]]\nsituation = "S"\nreasoning = "R"\nprobabilities = {{ {name} = 0.9, forward = 0.1 }}\n'
    text = text_of(own(tmp_path, examples__toml=table).action(lava(), ANALYSIS))
    assert '{"turn_left": 0.9, "turn_right": 0, "forward": 0.1}' in text


def test_every_edit_changes_the_fingerprint(tmp_path):
    before = own(tmp_path, action__user__jinja="one").fingerprint
    assert own(tmp_path, action__user__jinja="two").fingerprint != before
    assert own(tmp_path, action__user__jinja="one").fingerprint == before


def test_the_repair_turn_quotes_the_reply_and_the_problem():
    prompts = PromptSet(None, "minigrid")
    messages = prompts.repair(
        prompts.action(lava(), ANALYSIS), "my reply", "the probabilities sum to 7, not to 1"
    ).messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2].text == "my reply"
    assert "sum to 7" in messages[3].text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"action__user__jinja": "fine\n{{ mision }}"}, r"action\.user\.jinja, line 2: 'mision' is undefined"),
        ({"action__user__jinja": "{% if %}"}, r"action\.user\.jinja, line 1: "),
        ({"action__user__jinja": "\n\n{% include 'no.jinja' %}"}, r"template 'no\.jinja' is in none of"),
        ({"action__user__jinja": "\n{{ 1 / 0 }}"}, r"action\.user\.jinja, line 2: division by zero"),
        ({"action__user__jinja": "{{ ''.__class__.__mro__ }}"}, r"action\.user\.jinja, line 1: .*unsafe"),
        ({"set__toml": "stages = 3"}, r"set\.toml: stages: .*1 or 2"),
        ({"set__toml": "stage = 1"}, r"set\.toml: stage: there is no such option; there are stages"),
        ({"set__toml": "[sampling]\ntemp = 1"}, r"set\.toml: sampling\.temp: there is no such .*; there are temp"),
        ({"set__toml": '[[names]]\nenv = "*"\nactions = ["go", "go"]'}, r"names\.0\.actions: 'go' is there twice"),
        ({"action_user__jinja": "Mine."}, r"action_user\.jinja is read by nothing; did you mean action\.user\.jinja\?"),
        ({"notes__md": "Mine."}, r"has none of a prompt set's files, which are action\.system\.jinja, "),
        ({"set__toml": "stages ="}, r"set\.toml: "),
        ({"analysis__schema__json": '{"type": 3}'}, r"analysis\.schema\.json: "),
        ({"examples__toml": "[[example]"}, r"examples\.toml: "),
        ({"examples__toml": "[example]\na = 1"}, r"examples\.toml: write \[\[example\]\]"),
        ({"set__toml": "example_pictures = -1"}, r"set\.toml: example_pictures: .*greater than or equal to 0"),
        ({"set__toml": '[[names]]\nenv = "MiniGrid-*"\nactions = ["a"]'}, "has 1 actions, MiniGrid-LavaGapS7-v0 has 7"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_what_is_wrong_in_it(tmp_path, files, message):
    with pytest.raises(PromptError, match=message):
        own(tmp_path, **files).check(lava().env_info)


def test_partials_and_copies_kept_aside_are_no_misspelt_templates(tmp_path):
    files = {"action__user__jinja": "{% include 'pictures.jinja' %}", "pictures__jinja": "Mine."}
    files |= {"action__user__jinja__old": "before", "notes__md": "what I tried"}
    assert own(tmp_path, **files).action(lava(), ANALYSIS).messages[-1].text == "Mine."


@pytest.mark.parametrize("family", ["default", "minigrid"])
def test_what_is_added_to_the_end_of_a_copied_template_gets_a_line_of_its_own(tmp_path, family):
    for file in bundled_prompts().joinpath(family).glob("*.user.jinja"):
        (tmp_path / file.name).write_text(file.read_text() + "Beware.\n")
    prompts, bundled = PromptSet(tmp_path, family), PromptSet(None, family)
    for mine, theirs in (
        (prompts.analysis(lava()), bundled.analysis(lava())),
        (prompts.action(lava(), ANALYSIS), bundled.action(lava(), ANALYSIS)),
    ):
        assert mine.messages[-1].text == theirs.messages[-1].text + "\nBeware."


def pictured(folder, picture="seed = 4", rest="probabilities = { left = 1.0 }", count=1):
    (folder / "set.toml").write_text(f"example_pictures = {count}")
    table = f'[[example]]\npicture = {{ env_id = "MiniGrid-LavaGapS5-v0", {picture} }}\n{rest}\n[example.analysis]\n'
    table += 'agent_row = 1\nagent_column = 1\nheading = "right"\nahead = "floor"\nhazards = []\ntargets = []\n'
    (folder / "examples.toml").write_text(f"{table}next_step = {{ row = 1, column = 2 }}\n")
    return PromptSet(folder, "minigrid")


def test_without_the_option_no_example_has_a_picture():
    for question in (PromptSet(None, "minigrid").analysis(lava()), PromptSet(None, "minigrid").action(lava(), "{}")):
        assert [message.role for message in question.messages] == ["system", "user"]
        assert "worked example" not in text_of(question)


@pytest.mark.parametrize(
    "env_id", ["MiniGrid-LavaGapS7-v0", "MiniGrid-Dynamic-Obstacles-6x6-v0", "BabyAI-GoToLocal-v0"]
)
def test_pictured_examples_come_before_the_question_as_turns_like_it(tmp_path, env_id):
    prompts, view = own(tmp_path, set__toml="example_pictures = 2"), view_of(env_id)
    for question in (prompts.analysis(view), prompts.action(view, ANALYSIS)):
        assert [m.role for m in question.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert len({m.picture.digest for m in question.messages if m.picture}) == 3
        assert question.messages[-1].picture == with_lines(view.picture)
        assert "begins with 2 worked examples" in question.messages[0].text
        for message in question.messages[2:5:2]:
            assert question.read(message.text) == message.text
        assert question.messages[1].text.startswith("Mission: ")
    assert f"Analysis: {prompts.analysis(view).messages[2].text}" in question.messages[1].text


def test_the_picture_of_an_example_is_that_of_its_environment_after_its_actions(tmp_path):
    env = gym.make("MiniGrid-LavaGapS5-v0")
    env.reset(seed=4)
    env.step(env.unwrapped.actions.left)
    question = pictured(tmp_path, 'seed = 4, actions = ["left"]').analysis(lava())
    assert question.messages[1].picture == with_lines(viewer(env).view().picture)


def test_where_the_second_stage_has_no_picture_its_examples_have_none_either(tmp_path):
    prompts = own(tmp_path, set__toml="example_pictures = 1\npicture_in_action = false")
    assert [m.picture for m in prompts.action(lava(), ANALYSIS).messages] == [None] * 4
    prompts = own(tmp_path, set__toml="example_pictures = 1\npicture_in_action = false\nstages = 1")
    assert [m.picture is None for m in prompts.action(lava(), "").messages] == [True, False, True, False]


def test_an_example_is_told_its_last_actions_where_the_question_is(tmp_path):
    prompts = pictured(tmp_path, 'seed = 4, actions = ["left", "right", "done"]')
    (tmp_path / "set.toml").write_text("example_pictures = 1\nhistory = 2")
    assert (
        "Last actions, oldest first: turn_right, done\n"
        in PromptSet(tmp_path, "minigrid").analysis(lava()).messages[1].text
    )
    assert "Last actions" not in prompts.analysis(lava()).messages[1].text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"picture": "seed = -1"}, r"examples\.toml: example 1: picture\.seed: .*greater than or equal to 0"),
        ({"picture": "sead = 1"}, r"example 1: picture\.sead: Extra inputs"),
        (
            {"picture": 'actions = ["jump"]'},
            "1: its picture cannot be drawn: no action 'jump'; .* has left, right",
        ),
        ({"picture": f"seed = 4, actions = {['forward'] * 2}"}, "the episode ends with action 1 of 2"),
        ({"rest": ""}, r"example 1: probabilities: Field required"),
        (
            {"rest": "probabilities = { jump = 1.0 }"},
            "no reply that MiniGrid-LavaGapS7-v0 could get: unknown action jump",
        ),
        ({"rest": "probabilities = { left = 7.0 }"}, "example 1 is no reply .* the probabilities sum to 7, not to 1"),
    ],
)
def test_a_pictured_example_that_cannot_be_is_named_with_what_is_wrong(tmp_path, arguments, message):
    with pytest.raises(PromptError, match=message):
        pictured(tmp_path, **arguments).check(lava().env_info)


def test_an_example_that_is_not_shown_need_not_be_drawn(tmp_path):
    pictured(tmp_path, 'actions = ["jump"]', count=0).check(lava().env_info)


@pytest.mark.parametrize("name", list(WIRES))
def test_every_provider_gets_the_examples_pictures_in_their_turns(provider, tmp_path, name):
    (tmp_path / "set.toml").write_text("example_pictures = 2")
    Teacher(WIRES[name].model, prompts=tmp_path, store=None).advise(lava())
    for exchange in provider.log:
        turns = [(turn.role, len(turn.pictures)) for turn in exchange.seen.turns]
        assert turns == [("system", 0), ("user", 1), ("assistant", 0), ("user", 1), ("assistant", 0), ("user", 1)]
        assert exchange.seen.turns[-1].pictures == (with_lines(lava().picture).png,)


def test_pictured_examples_make_another_question_of_both_stages(provider, tmp_path):
    Teacher("openai/gpt-4o-mini").advise(lava())
    (tmp_path / "set.toml").write_text("example_pictures = 1")
    for _ in range(2):
        Teacher("openai/gpt-4o-mini", prompts=tmp_path).advise(lava())
    assert len(provider.log) == 4
    pictured(tmp_path, "seed = 5")
    Teacher("openai/gpt-4o-mini", prompts=tmp_path).advise(lava())
    assert len(provider.log) == 6


@pytest.mark.parametrize("stages", [1, 2])
def test_the_embedded_teacher_is_not_misled_by_examples(tmp_path, stages):
    (tmp_path / "set.toml").write_text(f"example_pictures = 3\nstages = {stages}")
    for env_id in ("MiniGrid-LavaGapS7-v0", "MiniGrid-Fetch-6x6-N2-v0", "MiniGrid-DoorKey-5x5-v0"):
        view = view_of(env_id)
        advice = [
            Teacher("embedded/minigrid-planner", prompts=prompts, store=None).advise(view).probs
            for prompts in (None, tmp_path)
        ]
        assert np.array_equal(*advice)


def test_a_folder_that_does_not_exist_is_named_beside_the_bundled_sets():
    with pytest.raises(PromptError, match="no prompt folder 'no_such'.*default, default-0.1, minigrid, minigrid-0.1"):
        PromptSet("no_such", "minigrid")


def test_prompt_folders_hold_no_code():
    assert not list(bundled_prompts().rglob("*.py"))

"""A prompt folder from a stranger is data: it runs no code, opens no address, reads no other file, and ends."""

import http.server
import json
import os
import sys
import threading
import time

import gymnasium as gym
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.errors import BadReplyError, PromptError
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.prompts.own_schema import OwnSchema
from lvlm2p_wrappers.prompts.sandbox import Sandbox
from lvlm2p_wrappers.views import viewer

SECONDS = 10  # of this thread's own time, on a slow machine; what has no limit takes minutes, or all memory


def lava():
    env = gym.make("MiniGrid-LavaGapS7-v0")
    env.reset(seed=0)
    return viewer(env).view()


def refused(folder, message, **files):
    """Check that a folder with these files is refused, with this message, within a few seconds."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    began = time.thread_time()
    with pytest.raises(PromptError, match=message):
        PromptSet(folder, "minigrid").check(lava().env_info)
    assert time.thread_time() - began < SECONDS


ENDLESS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "a long range": "{% for i in range(10**9) %}{% endfor %}",
    "a product of text": "{{ 'a' * 10**10 }}",
    "a product of a list": "{{ [0] * 10**10 }}",
    "text that doubles": "{% set a = 'a' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "sums that double": "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "lists that double": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "tables that double": "{% set a = 1 %}" + "{% set a = {'a': a, 'b': a} %}" * 40 + "{{ a }}",
    "blocks that double": "{% set a = 'a' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "attributes that double": "{% set n = namespace(x='a') %}" + "{% set n.x = n.x ~ n.x %}" * 40,
    "spaces that double": "{% set n = 1 %}" + "{% set n = namespace(a=n, b=n) %}" * 40 + "{{ n }}",
    "macros that double": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a loop that calls itself": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a template that includes itself": "{% include 'action.user.jinja' %}",
    "a template that extends itself": "{% extends 'action.user.jinja' %}",
    "a wide filter": "{{ 'a' | center(10**9) }}",
    "a wide method": "{{ 'a'.ljust(10**9) }}",
    "a wide format": "{{ '%9999999999d' | format(1) }}",
    "a format with a width of its own": "{{ '%*d' | format(9999999999, 1) }}",
    "a format method": "{{ '{:>9999999999}'.format(1) }}",
    "a format method found by a filter": "{{ ['{:>9999999999}'] | map(attribute='format') | list }}",
    "an indented table": "{{ {'a': 1} | tojson(indent=10**9) }}",
    "many slices": "{{ [1] | slice(10**9) | list }}",
    "a filled batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "an encoding in quadratic time": "{% set a = '" + "é" * 90_000 + "'.encode('punycode') %}",
    "a large power": "{{ 9**9**9 }}",
    "powers in a loop": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "a precise rounding": "{{ 5 | round(-(10**9)) }}",
    "many comparisons": "{% set b = range(99999) | list %}{% for i in b %}{% if -1 in b %}{% endif %}{% endfor %}",
    "many tests": "{% set b = range(99999) | list %}{% for i in b %}{% if -1 is in b %}{% endif %}{% endfor %}",
    "many slicings": "{% set b = range(99999) | list %}{% for i in b %}{% set c = b[1:] %}{% endfor %}",
    "a key that doubles": "{% set a = 1 %}" + "{% set a = (a, a) %}" * 40 + "{% set b = {a: 1} %}",
    "a chain of filters": "{{ range(99999)" + " | select | list" * 40 + " }}",
    "deep brackets": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "a template that is too long": "{{ a }}" * 30_000,
}  # fmt: skip
LIMITS = "a million steps|is for numbers|too large a number|three digits|not the method|passed on|recursion|unsafe"


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_never_ends_or_fills_the_memory_is_refused(tmp_path, template):
    """A template with endless loops, or with text that grows without bound, hangs a run or takes all memory."""
    refused(tmp_path, rf"action\.user\.jinja.*({LIMITS})", action__user__jinja=template)


@pytest.mark.parametrize(
    "expression", ["range(9999) | join(a)", "a | replace('a', a)", "a.replace('a', a)", "a.join(a)"]
)
def test_a_result_of_more_than_ten_million_characters_is_refused_before_it_is_made(tmp_path, expression):
    template = "{% set a = '" + "a" * 9999 + "' %}{{ (" + expression + ") | length }}"
    refused(tmp_path, "ten million characters", action__user__jinja=template)


def test_too_many_includes_are_refused(tmp_path):
    (tmp_path / "empty.jinja").write_text("")
    template = "{% for i in range(99999) %}" + "{% include 'empty.jinja' %}" * 50 + "{% endfor %}"
    refused(tmp_path, "a million steps", action__user__jinja=template)


def test_the_limit_holds_in_every_thread_and_each_render_has_its_own(tmp_path):
    (tmp_path / "action.user.jinja").write_text("{{ 'a' | center(mission | length * 1000) }}")
    prompts, ended = PromptSet(tmp_path, "minigrid"), []

    def render():
        for _ in range(200):  # together far more than one render may take
            prompts.action(lava_view, "")
        (tmp_path / "repair.jinja").write_text(ENDLESS["nested loops"])
        with pytest.raises(PromptError, match="a million steps"):
            PromptSet(tmp_path, "minigrid").repair(prompts.action(lava_view, ""), "", "")
        ended.append(True)

    lava_view = lava()
    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert ended


USEFUL = {
    "{{ actions | map(attribute='name') | join(', ') }}": "turn_left, turn_right, forward",
    "{% for a in actions if a.does %}{{ loop.index }}{{ '' if loop.last else '|' }}{% endfor %}": "1|2|3",
    "{% set n = namespace(x=0) %}{% for a in actions %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}": "3",
    "{% macro bold(text) %}**{{ text }}**{% endmacro %}{{ bold(env_id[:8]) }}": "**MiniGrid**",
    "{% set text %}{% filter upper %}a{% endfilter %}{% endset %}{{ text * 1 if false else text }}": "A",
    "{{ '%.2f' | format(2 / 3) }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2**3 }} {{ -3 | abs }}": "0.67 3 1 8 3",
    "{{ nothing | default('no') }} {{ 'yes' if nothing is defined else 'no' }}": "no no",
    "{% for k, v in {'a': 1, 'b': [2, (3,)]}.items() %}{{ k }}{{ v }}{% endfor %}": "a1b[2, (3,)]",
    "{{ actions[0].name | replace('l', 'L') | title | indent(2, true) }}": "  Turn_left",
    "{{ [3, 1, 2] | sort | reverse | list }} {{ 'a' in 'abc' }} {{ 1 < 2 < 3 }}": "[3, 2, 1] True True",
    "{{ 'a b'.split() | tojson }} {{ 'abc'[::-1] }} {{ 'a' ~ 1 ~ none }}": '["a", "b"] cba a1None',
}


@pytest.mark.parametrize(("template", "text"), USEFUL.items())
def test_what_honest_templates_do_works_as_in_jinja(tmp_path, template, text):
    (tmp_path / "analysis.system.jinja").write_text(template)
    assert PromptSet(tmp_path, "minigrid").analysis(lava()).messages[0].text == text


@pytest.fixture
def secret(tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "secret.jinja"
    path.write_text("the secret")
    return path


@pytest.mark.parametrize("name", ["action.user.jinja", "rules/lava.jinja", "set.toml", "analysis.schema.json", "notes"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, secret, name):
    """A link in a prompt folder puts a file of the user's, such as /etc/passwd, into the prompt."""
    (tmp_path / "rules").mkdir()
    (tmp_path / name).symlink_to(secret)
    refused(tmp_path, "is a link out of the folder", repair__jinja="again")


def test_a_linked_folder_and_a_broken_link_are_refused_too(tmp_path, secret):
    (tmp_path / "rules").symlink_to(secret.parent)
    refused(tmp_path, "rules is a link out of the folder", repair__jinja="again")
    (tmp_path / "rules").unlink()
    (tmp_path / "rules").symlink_to("rules")
    refused(tmp_path, "rules", repair__jinja="again")


def test_a_link_within_the_folder_is_followed(tmp_path):
    (tmp_path / "mine.jinja").write_text("Mine.")
    (tmp_path / "action.user.jinja").symlink_to("mine.jinja")
    assert PromptSet(tmp_path, "minigrid").action(lava(), "").messages[-1].text == "Mine."


@pytest.mark.parametrize("include", ["../secret.jinja", "rules/../../secret.jinja", "{outside}", "{outside}\\0"])
def test_nothing_outside_of_the_folder_can_be_included(secret, include):
    folder = secret.parent / "set"
    folder.mkdir()
    include = include.replace("{outside}", str(secret))
    refused(folder, "is in none of", action__user__jinja="{% include '" + include + "' %}")
    rules = "[rules]\n'*' = " + json.dumps(str(secret))
    refused(folder, "is in none of", action__user__jinja="Mine.", set__toml=rules)


@pytest.mark.parametrize("name", ["action.user.jinja", "notes"])
def test_a_fifo_is_refused_instead_of_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(tmp_path, "is no plain file", repair__jinja="again")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"action__user__jinja": b"gr\xfc\xdfe"}, r"action\.user\.jinja is not in UTF-8: .*position 2"),
        ({"set__toml": b"\xff"}, r"set\.toml is not in UTF-8"),
        ({"analysis__schema__json": b"\xff\xfe{"}, r"analysis\.schema\.json is not in UTF-8"),
        ({"action__user__jinja": "a" * 256_001}, r"action\.user\.jinja has more than 256 kB"),
        ({"examples__toml": "a = " + "[" * 9999}, r"examples\.toml is nested too deep"),
        ({"set__toml": "stages = 1" + "0" * 5000}, r"set\.toml: "),
        ({"set__toml": "[sampling]\ntemperature = nan"}, r"set\.toml: sampling\.temperature: .*finite"),
        ({"set__toml": "example_pictures = 100000"}, r"set\.toml: example_pictures: .*less than or equal to 100"),
        ({"set__toml": "[sampling]\nmax_tokens = 1" + "0" * 400}, r"set\.toml: sampling\.max_tokens: .*less than"),
        ({"set__toml": "a." * 100_000 + "a = 1"}, r"set\.toml has a line with more than 1,000 dots"),
        ({"set__toml": '[rules]\n"' + "[" * 20_000 + '" = "x"'}, r"set\.toml: rules\..*at most 200 characters"),
        (
            {"set__toml": f"[[names]]\nenv = '*'\nactions = {['a', *map(str, range(25_000)), 'a']}"},
            "'a' is there twice",
        ),
        ({"examples__toml": "[[example]]\nenv = 5"}, r"example 1: env: .*valid string"),
        ({"repair__jinja": "", "huge": b"\0" * 16_000_001}, r"holds more than 1,000 files or 16 MB"),
        ({"repair__jinja": ""} | {f"{n}": "" for n in range(1000)}, r"holds more than 1,000 files or 16 MB"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_file_that_no_prompt_set_needs_is_refused(tmp_path, files, message):
    """Some ended in raw errors, and names with 100,000 dots took minutes to read."""
    began = time.process_time()
    refused(tmp_path, message, **files)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("folder", ["x" * 5000, "a/../minigrid", "\0"])
def test_a_name_that_no_folder_can_have_is_told(folder):
    with pytest.raises(PromptError, match="there is no prompt folder"):
        PromptSet(folder, "minigrid")


def test_hidden_files_are_not_part_of_a_set(tmp_path):
    (tmp_path / "repair.jinja").write_text("again")
    before = PromptSet(tmp_path, "minigrid").fingerprint
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "fifo")
    (tmp_path / ".repair.jinja.swp").symlink_to("/etc/passwd")
    assert PromptSet(tmp_path, "minigrid").fingerprint == before


# --- examples with pictures ---


def pictured(env_id):
    table = f'[[example]]\npicture = {{ env_id = "{env_id}" }}\nprobabilities = {{ left = 1.0 }}\n[example.analysis]\n'
    table += 'agent_row = 1\nagent_column = 1\nheading = "right"\nahead = "x"\ntargets = []\nhazards = []\n'
    return {"set__toml": "example_pictures = 1", "examples__toml": f"{table}next_step = {{ row = 1, column = 2 }}\n"}


def test_a_module_named_by_an_example_is_not_imported(tmp_path, monkeypatch):
    """An examples.toml that names module:Env-v0 runs that module's code as soon as its picture is drawn."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "stranger.py").write_text("raise SystemExit('the code ran')")
    monkeypatch.syspath_prepend(tmp_path / "code")
    folder = tmp_path / "set"
    folder.mkdir()
    message = r"names the module stranger, and a prompt folder imports nothing. Write `import stranger`"
    refused(folder, message, **pictured("stranger:Env-v0"))
    assert "stranger" not in sys.modules


def test_an_environment_that_the_user_has_registered_may_be_named_with_its_module(tmp_path):
    for name, text in pictured("stranger:MiniGrid-LavaGapS5-v0").items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    assert len(PromptSet(tmp_path, "minigrid").analysis(lava()).messages) == 4


def test_the_modules_that_examples_name_are_listed_for_whoever_trusts_them(tmp_path):
    for name, text in pictured("stranger:Env-v0").items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    assert PromptSet(tmp_path, "minigrid").modules == ["stranger"]
    assert PromptSet(None, "minigrid").modules == []


@pytest.mark.parametrize("value", ["2026-01-01", f"{{ {'a.' * 999}a = 1 }}"])
def test_an_example_that_is_no_json_is_named(tmp_path, value):
    files = pictured("MiniGrid-LavaGapS5-v0")
    files["examples__toml"] = files["examples__toml"].replace('"x"', value)
    refused(tmp_path, r"example 1 is no reply that|nested too deep", **files)


# --- schemas of the user's own ---


def schema(**properties):
    return {"type": "object", "properties": properties}


@pytest.fixture
def address():
    """An address on this machine, and what was asked for there."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()


@pytest.mark.parametrize("reference", ["{address}/schema.json", "file:///etc/passwd", "other.json", "#/nope", "#nope"])
def test_a_reference_out_of_the_schema_is_refused_and_no_address_is_opened(tmp_path, address, reference):
    """A schema with a remote reference has the user's machine fetch an address that a stranger chose."""
    url, asked = address
    own = json.dumps(schema(a={"$ref": reference.replace("{address}", url)}))
    refused(tmp_path, r'analysis\.schema\.json: "\$ref": .* leads nowhere in this schema', analysis__schema__json=own)
    assert not asked


def doubling(depth):
    parts = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(depth)}
    return schema(a={"$ref": "#/$defs/a0"}) | {"$defs": {**parts, f"a{depth}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (schema(a={"$ref": "#"}), "nested too deep, or refers to itself"),
        ({"type": "object", "$ref": "#"}, "nested too deep, or refers to itself"),
        (doubling(40), "it has more than 10,000 parts, or refers to itself"),
        (schema(a={"type": "array", "minItems": 10**9, "items": {"type": "string"}}), "more than 10,000 parts"),
        (schema(a={"type": "array", "minItems": 10**400, "items": {"type": "string"}}), "more than 10,000 parts"),
        (schema(a={"pattern": "("}), r"'\(' is not a 'regex'"),
        (schema(a={"pattern": r"(a)\1"}), "cannot be used: backreferences are not supported"),
        (schema(a={"pattern": "(?=a)"}), "cannot be used: look-around"),
        (schema(a={"pattern": r"(\w{99}){99}"}), "cannot be used: Compiled regex exceeds size limit"),
        (schema(a={"pattern": "a" * 201}), r"the pattern aaa.* has more than 200 characters"),
        (schema() | {"patternProperties": {"^(a+)+$": {}}}, "patternProperties is not supported"),
        (schema() | {"allOf": [{"type": [{"a": n} for n in range(9999)]}]}, "it has more than 16,000 characters"),
        (schema(a={"$ref": 5, "items": None}), "5 is not of type 'string'|None is not of type"),
        (schema() | {"$id": "http://example.org/"}, r"\$id is not supported"),
        ('{"type": "object", "minProperties": NaN}', "NaN is not a number that JSON knows"),
        ('{"type": "object", "minProperties": 1e999}', "minProperties|inf"),
        ('{"type": "object", "not": ' + '{"not": ' * 1500 + "{}" + "}" * 1501, "nested too deep"),
        ("[]", "the reply has to be an object"),
        ("{", "Expecting property name"),
    ],
)  # fmt: skip
def test_a_schema_that_cannot_be_checked_in_bounded_time_is_refused(tmp_path, own, message):
    """A schema that refers to itself, or to nothing, ends in a raw error after the first reply has been paid for."""
    text = own if isinstance(own, str) else json.dumps(own)
    refused(tmp_path, rf"analysis\.schema\.json: .*{message}", analysis__schema__json=text)


def test_a_pattern_takes_time_in_proportion_to_the_reply():
    """The pattern ^(a+)+$ hangs a run for ever at the first reply that almost fits."""
    own = OwnSchema(json.dumps(schema(a={"type": "string", "pattern": "^(a+)+$"})))
    assert own.read('{"a": "aaaa"}') == '{"a": "aaaa"}'
    began = time.thread_time()
    with pytest.raises(BadReplyError, match=r"^a: 'a+b' does not match '\^\(a\+\)\+\$'") as bad:
        own.read(json.dumps({"a": "a" * 50_000 + "b"}))
    assert bad.value.kind == "keys"
    assert time.thread_time() - began < SECONDS


def test_a_reply_that_takes_too_long_to_check_is_a_bad_reply():
    parts = {"$defs": {"numbers": {"type": "array", "items": {"enum": [str(n) for n in range(90)]}}}}
    own = OwnSchema(json.dumps(schema(a={"anyOf": [{"$ref": "#/$defs/numbers"}] * 90}) | parts))
    assert own.read('{"a": ["1", "2"]}')
    began = time.thread_time()
    with pytest.raises(BadReplyError, match="takes too long to check"):
        own.read(json.dumps({"a": [[n] for n in range(9000)]}))
    assert time.thread_time() - began < SECONDS


def test_a_users_own_schema_checks_the_analysis_and_says_what_is_wrong():
    part = {"type": "object", "properties": {"row": {"type": "integer"}}, "required": ["row"]}
    own = OwnSchema(
        json.dumps(schema(danger={"type": "boolean"}, agent={"$ref": "#/$defs/a"}) | {"$defs": {"a": part}})
    )
    assert own.read('Sure: {"danger": true, "agent": {"row": 1}}') == '{"danger": true, "agent": {"row": 1}}'
    for reply, message in {
        '{"danger": "no"}': "^danger: 'no' is not of type 'boolean'$",
        '{"agent": {}}': "^agent: 'row' is a required property$",
        "[]": "no JSON object",
    }.items():
        with pytest.raises(BadReplyError, match=message):
            own.read(reply)


@pytest.mark.parametrize(
    "files",
    [
        {"analysis__schema__json": json.dumps(schema(a={"$ref": "#/nope"}))},
        {"action__user__jinja": ENDLESS["nested loops"]},
        {"repair__jinja": ENDLESS["nested loops"]},
        pictured("stranger:Env-v0"),
    ],
    ids=["schema", "template", "repair", "example"],
)
def test_a_folder_is_refused_before_anything_is_paid_for(provider, tmp_path, files):
    """A broken schema, or a broken template of the repair turn, shows only after a reply has been paid for."""
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    with pytest.raises(PromptError):
        Teacher("openai/gpt-4o-mini", prompts=tmp_path, store=None).advise(lava())
    assert not provider.log


# --- fuzzed ---

EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "1", "999999999", "'x'", "[1, 2]", "{'k': a}", "actions", "n.x", "range(99999)"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "in", "and"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        st.tuples(inner, st.sampled_from(["list", "join(a)", "replace('x', b)", "center(99999)", "map('list')", "sort",
                                          "batch(9, a)", "format(b)", "tojson(indent=99)", "string", "int", "length",
                                          "indent(9999)", "items", "default(b)", "upper", "first", "round(999)"])).map(
            lambda parts: f"({' | '.join(parts)})"
        ),
        st.tuples(inner, inner).map(lambda parts: f"[{parts[0]}, {parts[1]}]"),
        st.tuples(inner, st.sampled_from([".ljust(99999)", "[1:]", ".x", ".format(a)", ".join(b)"])).map("".join),
    ),
    max_leaves=6,
)  # fmt: skip
STATEMENTS = st.recursive(
    EXPRESSIONS.map(lambda e: "{{ " + e + " }}") | st.sampled_from(["text", "{% include 'x' %}", "{{ f(b) }}"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(EXPRESSIONS, inner).map(lambda p: "{% for b in " + p[0] + " %}" + p[1] + "{% endfor %}"),
        st.tuples(EXPRESSIONS, inner).map(lambda p: "{% set a = " + p[0] + " %}" + p[1]),
        st.tuples(EXPRESSIONS, inner).map(lambda p: "{% set n.x = " + p[0] + " %}" + p[1]),
        inner.map(lambda body: "{% set a %}" + body + "{% endset %}{{ a }}{{ a }}"),
        inner.map(lambda body: "{% macro f(b) %}" + body + "{% endmacro %}{{ f(a) }}"),
    ),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(STATEMENTS)
def test_whatever_a_template_says_it_ends(template):
    sandbox = Sandbox(lambda name: (template if name == "x" else "{% set n = namespace(x='x') %}" + template, name))
    began = time.thread_time()
    try:
        variables = {"a": "xyz", "b": [1, 2], "actions": [("left", "")], "mission": "go"}
        text = sandbox.get_template("start").render(variables)
    except Exception:  # noqa: BLE001 -- the prompt set says which, and where
        text = ""
    assert time.thread_time() - began < SECONDS
    assert len(text) <= 1_000_000


KEYWORDS = ["type", "items", "properties", "allOf", "anyOf", "not", "$ref", "$defs", "a", "enum", "pattern", "const"]
KEYWORDS += ["minItems", "required", "if", "then", "additionalProperties", "$id", "uniqueItems"]
VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | st.sampled_from([True, "string", "array", "#", "#/$defs/a", "(a+)+"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES, VALUES)
def test_whatever_a_schema_says_it_is_refused_or_checks_replies(part, reply):
    text = json.dumps({"type": "object", "properties": {"a": part}, "$defs": {"a": part}})
    began = time.thread_time()
    try:
        own = OwnSchema(text)
    except ValueError:
        return
    finally:
        assert time.thread_time() - began < SECONDS
    try:
        assert json.loads(own.read(json.dumps({"a": reply}))) == {"a": reply}
    except BadReplyError as error:
        assert str(error)
    assert time.thread_time() - began < SECONDS

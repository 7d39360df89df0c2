"""The page on an evaluation: what it shows, and that a text in it is never more than text."""

import base64
import hashlib
import json
import re
import struct
import zlib

import pytest

from lvlm2p_wrappers import UsageError
from lvlm2p_wrappers.records import GroundTruth, Label
from lvlm2p_wrappers.report import from_evaluation, render
from tests.report.evaluation_samples import HOSTILE, change_label, read_lines, spoil
from tests.report.html_tree import parse


def page_of(folder):
    return parse(render(from_evaluation(folder)))


def change_evaluation(folder, **values):
    file = folder / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_metrics(folder, **values):
    metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
    change_evaluation(folder, metrics=metrics | values)


def view(page, number):
    return page.one("article", id=f"view-{number + 1}")


# --- the metrics ---


def test_every_metric_is_shown_with_its_interval(folder):
    shown = page_of(folder).one("section", kind="metrics").words
    for said in (
        "Most probable action Success 81.2% 60.0 to 86.0% n 12 Return 0.43 0.60 to 0.86 n 12 Steps an episode 11.5",
        "Sampled actions Success 81.2%",
        "1 without success Seeds 3",
        "Agent's cell and heading 75.0% 60.0 to 86.0% n 12 Agent's cell 75.0% 60.0 to 86.0% n 12",
        "Agent's heading 75.0%",
        "Targets 75.0%",
        "Hazards 75.0%",
        "Most probable action is optimal 75.0%",
        "Probability of the fatal actions, where there are any 6.2%",
        "Entropy, mean 0.44 nats",
        "Expected calibration error 15.8%",
        "Questions without a label 3 json 2 sum 1",
        "Bad replies, repaired ones included 4",
        "Price $0.00037 Price of 20,000 frames, at most $0.29 Latency, median 1.2 s Latency, 95th percentile 3.5 s",
        "Tokens sent, mean 2,961 Tokens received, mean 187",
    ):
        assert said in shown


def test_the_headings_table_has_what_is_true_in_rows_and_what_was_said_in_columns(folder):
    table = page_of(folder).one("table", kind="confusion")
    rows = [row.words for row in table.all("tr")]
    assert rows[1:] == ["true up right down left", "up 7 1 1 1", "right 0 7 0 0", "down 0 0 7 0", "left 0 0 0 7"]
    assert [cell.words for cell in table.all("td", kind="same")] == ["7"] * 4


def test_the_reliability_diagram_has_a_point_for_each_bin(folder):
    drawn = page_of(folder).one("svg", kind="reliability")
    low, high = drawn.all("circle")
    assert (float(low["cx"]), float(low["cy"])) == pytest.approx((94, 120))
    assert (float(high["cx"]), float(high["cy"])) == pytest.approx((186, 58))
    assert float(high["r"]) > float(low["r"])
    assert high.words == "7 labels: 93.0% confidence, 71.0% optimal"


def test_an_incomplete_evaluation_says_so(folder):
    assert "Incomplete" not in page_of(folder).words
    change_evaluation(folder, complete=False, states=40)
    page = page_of(folder)
    assert "Incomplete. 8 of 40 states are labelled" in page.words
    assert len(list(page.all("article"))) == 8


def test_an_evaluation_without_rollouts_has_no_empty_section_for_them(folder):
    assert "Rollouts" in titles(page_of(folder))
    change_metrics(folder, rollouts={})
    assert titles(page_of(folder))[0] == "Accuracy of the analysis"


def test_without_ground_truth_nothing_is_judged(folder):
    nothing = dict.fromkeys(("agreement", "mass_optimal", "mass_fatal", "ece"))
    change_metrics(folder, rollouts={}, analysis=None, action={**nothing, "entropy": 0.5, "reliability": []})
    for number in range(8):
        change_label(folder, number, truth=None, analysis={"summary": "a lake"})
    page = page_of(folder)
    assert titles(page) == ["Quality of the advice", "Usable replies", "Price of a label"]
    assert page.one("section", kind="metrics").words.startswith("Metrics Quality of the advice Entropy, mean 0.50 nats")
    assert not [badge.words for badge in page.all("p", kind="badge")]
    assert not [select["name"] for select in page.all("select") if select["name"] in ("advice", "analysis", "heading")]
    assert "summary a lake" in view(page, 0).words
    assert not list(page.all("input", name="marks"))  # there is nothing to draw


def titles(page):
    return [title.words for title in page.one("section", kind="metrics").all("h3")]


# --- the views ---


def test_a_view_shows_the_advice_as_bars_and_marks_what_is_optimal(folder):
    first = read_lines(folder / "labels.jsonl")[0]
    bars = list(view(page_of(folder), 0).one("ul", kind="bars").all("li"))
    assert [bar.one("span", kind="action").words for bar in bars] == first["actions"]
    assert [float(bar.one("rect", kind="bar")["width"]) for bar in bars] == pytest.approx(
        [100 * share for share in first["probs"]], abs=0.006
    )
    optimal = [bar.one("span", kind="action").words for bar in bars if "✓ optimal" in bar.words]
    assert optimal == first["truth"]["optimal"]
    (chosen,) = [bar for bar in bars if "chosen" in bar["class"].split()]
    assert chosen.words.startswith(first["actions"][first["probs"].index(max(first["probs"]))])


@pytest.mark.parametrize(
    ("optimal", "fatal", "badge"),
    [(["left"], [], "✓ right"), (["right"], ["forward"], "≠ wrong"), (["right"], ["left"], "✕ fatal")],
)
def test_a_view_is_judged_by_its_most_probable_action(folder, optimal, fatal, badge):
    truth = read_lines(folder / "labels.jsonl")[0]["truth"] | {"optimal": optimal, "fatal": fatal}
    change_label(folder, 0, actions=["left", "right", "forward"], probs=[0.5, 0.5, 0.0], truth=truth)
    assert badge in [found.words for found in view(page_of(folder), 0).all("p", kind="badge")]


def test_a_state_without_a_verdict_is_not_judged():
    nothing = dict.fromkeys(("picture", "analysis", "model"), None)
    truth = GroundTruth(row=1, column=1, heading="up", targets=(), hazards=(), optimal=(), fatal=())
    told = {"mission": "", "carrying": "", "actions": ("left", "right"), "probs": (0.2, 0.8), "exchanges": ()}
    label = Label(id=0, truth=truth, **nothing, **told)
    assert (label.argmax, label.verdict) == ("right", "unjudged")


def test_a_failure_is_shown_in_place_of_advice(folder):
    change_label(folder, 0, probs=None, analysis=None, failure={"kind": "sum", "message": "they sum to 7"})
    shown = view(page_of(folder), 0)
    assert "None: sum. they sum to 7" in shown.words
    assert "∅ no advice" in shown.words
    assert "! error" in shown.words


def test_an_analysis_is_held_against_the_truth(folder):
    label = read_lines(folder / "labels.jsonl")[0]
    truth = label["truth"] | {"row": 2, "column": 2, "heading": "up", "hazards": [], "targets": [cell("goal", 3, 3)]}
    said = {
        "agent_row": 2, "agent_column": 1, "heading": "up", "carrying": "a key", "summary": "as it seems",
        "targets": [cell("goal", 3, 3), cell("goal", 1, 1)], "hazards": [], "obstacles": [cell("door", 1, 3)],
    }  # fmt: skip
    change_label(folder, 0, truth=truth, analysis=said)
    found = {row.one("dt").words: row for row in view(page_of(folder), 0).one("dl", kind="findings").all("div")}
    assert found["agent"].one("dd").words == "(2, 1) ≠ truth: (2, 2)"
    assert found["heading"].one("dd").words == "up ✓"
    assert found["targets"].one("del").words == "goal (1, 1)"
    assert found["targets"].one("ins").words == "goal (3, 3)"
    assert found["hazards"].one("dd").words == "none ✓"
    assert [name for name, row in found.items() if row["class"] == "off"] == ["agent", "targets"]
    assert found["obstacles"].one("dd").words == "door (1, 3)"


def test_targets_of_a_later_part_of_the_mission_may_be_named_too(folder):
    label = read_lines(folder / "labels.jsonl")[0]
    change_label(
        folder, 0,
        truth=label["truth"] | {"targets": [cell("ball", 1, 1)], "also": [cell("box", 2, 2)]},
        analysis=label["analysis"] | {"targets": [cell("box", 2, 2), cell("ball", 1, 1)]},
    )  # fmt: skip
    (targets,) = [row for row in view(page_of(folder), 0).all("div") if row.words.startswith("targets")]
    assert targets.words == "targets box (2, 2), ball (1, 1) ✓"


def cell(what, row, column):
    return {"what": what, "row": row, "column": column}


def test_what_the_teacher_says_it_saw_is_drawn_where_it_says(folder):
    label = read_lines(folder / "labels.jsonl")[0]
    said = {"agent_row": 3, "agent_column": 1, "heading": "down", "targets": [cell("goal", 1, 2)], "hazards": []}
    change_label(folder, 0, analysis=label["analysis"] | said)
    drawn = view(page_of(folder), 0).one("g", kind="marks")
    agent, target = drawn.one("g", kind="agent"), drawn.one("circle", kind="target")
    assert agent["transform"] == "rotate(90 80 144)"  # a tile is 32 pixels wide, and the first ones hold the numbers
    assert (agent.one("rect")["x"], agent.one("rect")["y"]) == ("65", "129")
    assert (target["cx"], target["cy"]) == ("112", "80")
    change_label(folder, 0, analysis=label["analysis"] | {"agent_row": 99, "targets": [], "hazards": []})
    assert not list(view(page_of(folder), 0).all("g", kind="marks"))  # outside of the picture


def test_a_conversation_has_everything_that_was_said(folder):
    label = read_lines(folder / "labels.jsonl")[2]
    page = page_of(folder)
    held = view(page, 2).one("details", kind="conversation")
    assert "open" not in held.attributes
    for exchange, shown in zip(label["exchanges"], held.all("section", kind="exchange"), strict=True):
        told = {details.one("pre").text.strip("\n") for details in shown.all("details", kind="message")}
        for message in exchange["messages"]:
            common = [text for text in page.one("section", kind="shared").all("pre") if message["text"] in text.text]
            assert message["text"].strip("\n") in told or common
        assert shown.one("div", kind="reply").one("pre").text == "\n" + exchange["reply"]
        assert f"{exchange['prompt_tokens']:,} tokens sent, {exchange['completion_tokens']:,} received" in shown.words
        assert "with the picture above" in shown.words


def test_the_picture_of_an_example_is_not_taken_for_the_view(folder):
    (first, *others) = read_lines(folder / "labels.jsonl")[0]["exchanges"]
    example = {"role": "user", "text": "an example", "picture": "example"}
    change_label(folder, 0, exchanges=[first | {"messages": [example, *first["messages"]]}, *others])
    messages = list(view(page_of(folder), 0).all("details", kind="message"))
    assert "with the picture of an example" in messages[0].words
    assert "with the picture above" in messages[2].words


def test_pictures_and_texts_that_repeat_are_on_the_page_once(folder):
    html = render(from_evaluation(folder))
    system = read_lines(folder / "labels.jsonl")[0]["exchanges"][0]["messages"][0]["text"]
    assert html.count(system[100:160].replace('"', "&#34;").replace("'", "&#39;")) == 1
    digest = read_lines(folder / "labels.jsonl")[0]["picture"]
    change_label(folder, 1, picture=digest)
    page = page_of(folder)
    assert len(list(page.all("image"))) == 7
    assert view(page, 0).one("use")["href"] == view(page, 1).one("use")["href"]
    data = page.one("image", id=view(page, 0).one("use")["href"][1:])["href"].partition("base64,")[2]
    assert base64.b64decode(data) == (folder / "pictures" / f"{digest}.png").read_bytes()


def test_each_filter_offers_what_occurs_with_its_count(folder):
    page = page_of(folder)
    views = list(page.all("article"))
    offered = {select["name"]: select for select in page.all("select")}
    assert {"advice", "analysis", "heading", "source"} <= set(offered)
    assert not {"env", "model"} & set(offered)  # there is only one
    for name, select in offered.items():
        everything, *choices = select.all("option")
        assert everything.words == "all (8)"
        counts = {choice["value"]: int(re.search(r"\((\d+)\)$", choice.words)[1]) for choice in choices}
        values = [view[f"data-{name}"] for view in views]
        assert counts == {value: values.count(value) for value in values}


# --- texts are texts ---


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20].encode("unicode_escape").decode())
def test_a_hostile_text_is_a_text_and_nothing_else(folder, text):
    spoil(folder, "a" * len(text))
    harmless = page_of(folder)
    spoil(folder, text)
    page = page_of(folder)
    assert page.shape == harmless.shape
    assert page.one("style").text == harmless.one("style").text
    assert page.one("script").text == harmless.one("script").text
    assert said(view(page, 0).one("div", kind="reply").one("pre")) == text.replace("\r\n", "\n")
    for element in page.all():
        assert not [name for name in element.attributes if name.startswith("on") or name in ("style", "src", "action")]
        address = element.attributes.get("href")
        assert address is None or re.fullmatch(r"#[a-z]+(-\d+)?|data:,|data:image/png;base64,[\w+/=]+", address)


def said(pre):
    """The text of an element, in which what cannot be seen is given by its number."""
    return re.sub(r"⟨U\+([0-9A-F]{4})⟩", lambda code: chr(int(code[1], 16)), pre.text.removeprefix("\n"))


def test_a_long_text_is_kept_whole(folder):
    change_label(folder, 0, mission="x" * 100_000)
    assert view(page_of(folder), 0).one("dl", kind="told").words.startswith("Mission " + "x" * 100_000)


def test_signs_that_turn_text_around_or_are_obeyed_are_shown_by_number(folder):
    spoil(folder, "\u202egnp.exe \u2066 \x1b[2J \x00 \ud800 \u061c \u2028")
    html = render(from_evaluation(folder))
    assert "⟨U+202E⟩gnp.exe ⟨U+2066⟩ ⟨U+001B⟩[2J ⟨U+0000⟩ ⟨U+D800⟩ ⟨U+061C⟩ ⟨U+2028⟩" in html
    html.encode()
    assert not set(html) & set("\u202e\u2066\x1b\x00\ud800\u061c\u2028")


def test_the_policy_allows_the_one_script_and_the_one_style_only(folder):
    page = page_of(folder)
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes)
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.one(tag).text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    head = [element.tag for element in page.one("head").all()]
    assert head.index("meta") < head.index("style")


# --- what is damaged ---


def test_a_folder_that_is_no_evaluation_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"is no evaluation: it has no evaluation.json"):
        from_evaluation(tmp_path)


def png(width, height):
    """A PNG file of few bytes that claims this size."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"<svg onload=x>", png(60_000, 60_000), png(10_000, 6_000), png(0, 0), png(9, 9)[:-13] + b"\xff" * 13],
    ids=["missing", "empty", "SVG", "3600 megapixels", "60 megapixels", "no pixels", "damaged"],
)
def test_a_picture_that_cannot_be_shown_costs_only_itself(folder, content):
    """A PNG that is none, or whose few bytes mean gigabytes, used to end the report."""
    digest = read_lines(folder / "labels.jsonl")[0]["picture"]
    file = folder / "pictures" / f"{digest}.png"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    page = page_of(folder)
    assert "The picture is missing." in view(page, 0).words
    assert len(list(page.all("image"))) == 7

"""The folder of an evaluation: what is read back, what is refused, and that two processes never write into one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvlm2p_wrappers import UsageError
from lvlm2p_wrappers.evaluation import EvaluationFolder, compute_metrics, read_folder, read_picture
from lvlm2p_wrappers.records import Episode, EvaluationArguments, Exchange, Label, Message
from lvlm2p_wrappers.report import from_evaluation, render
from lvlm2p_wrappers.saved_picture import SavedPicture
from tests.report.html_tree import parse

FORMAT_1 = Path(__file__).parent / "format_1"
ARGUMENTS = EvaluationArguments(
    env_id="FrozenLake-v1", model="openai/x", prompts="rgb", fingerprint="0123", seed=0, states=3, episodes=1
)
PICTURE = SavedPicture(next((FORMAT_1 / "pictures").iterdir()).read_bytes())


def label(number=0, text="hello"):
    exchange = Exchange(
        stage="action",
        messages=(Message("user", text, PICTURE),),
        reply="{}",
        model="x",
        outcome="ok",
        problem="",
        latency_s=1.0,
        prompt_tokens=10,
        completion_tokens=1,
        cost_usd=None,
    )
    return Label(
        id=number,
        source="random",
        seed=0,
        step=number,
        picture=PICTURE,
        mission="",
        carrying="nothing",
        actions=("left", "right"),
        probs=(0.25, 0.75),
        analysis={"summary": text},
        model="x",
        exchanges=(exchange,),
    )


EPISODE = Episode(policy="sampled", seed=0, episodic_return=0.5, length=3, success=True, failures=0)


@pytest.fixture
def folder(tmp_path):
    """An evaluation with two labels and an episode."""
    path = tmp_path / "evaluation"
    with EvaluationFolder(path, ARGUMENTS) as writer:
        writer.add_label(label(0))
        writer.add_label(label(1))
        writer.add_episode(EPISODE)
        writer.save(compute_metrics(writer.labels, writer.episodes), complete=True)
    return path


def read_evaluation(folder):
    return read_folder(folder)[0]


def read_labels(folder):
    return read_folder(folder)[1]


def change_line(file, number, change):
    lines = file.read_text().splitlines()
    lines[number] = json.dumps(change(json.loads(lines[number])))
    file.write_text("\n".join(lines) + "\n")


class TestReading:
    def test_what_was_written_is_read(self, folder):
        assert read_labels(folder) == [label(0), label(1)]
        assert read_folder(folder)[2] == [EPISODE]
        evaluation = read_evaluation(folder)
        assert (evaluation.env_id, evaluation.complete) == ("FrozenLake-v1", True)
        assert evaluation.metrics == compute_metrics([label(0), label(1)], [EPISODE])
        assert read_picture(folder, PICTURE.digest) == PICTURE.png

    def test_a_reply_with_half_a_surrogate_pair_is_kept(self, folder):
        with EvaluationFolder(folder, ARGUMENTS) as writer:
            writer.add_label(label(2, text="half: \ud800, umlaut: ä"))
        assert read_labels(folder)[2].exchanges[0].messages[0].text == "half: \ud800, umlaut: ä"

    @pytest.mark.parametrize("name", ["mission", "exchanges", "probs", "picture"])
    def test_a_missing_or_renamed_field_of_a_label_is_named(self, folder, name):
        """A renamed field used to show as a blank in the report."""
        change_line(folder / "labels.jsonl", 1, lambda row: {k: v for k, v in row.items() if k != name})
        with pytest.raises(UsageError, match=rf"labels\.jsonl, line 2: .*{name}"):
            read_labels(folder)
        change_line(folder / "labels.jsonl", 1, lambda row: row | json.loads(label(1).model_dump_json()) | {"x": 1})
        with pytest.raises(UsageError, match=r"line 2: x: Extra inputs are not permitted"):
            read_labels(folder)

    @pytest.mark.parametrize("path", [("metrics", "price", "usd_per_label"), ("metrics", "replies"), ("prompts",)])
    def test_a_missing_field_of_the_evaluation_is_named(self, folder, path):
        file = folder / "evaluation.json"
        content = found = json.loads(file.read_text())
        for name in path[:-1]:
            found = found[name]
        del found[path[-1]]
        file.write_text(json.dumps(content))
        with pytest.raises(UsageError, match=rf"evaluation\.json: {'.'.join(path)}: Field required"):
            read_evaluation(folder)

    @pytest.mark.parametrize(
        "line",
        ["{", "[]", "3", '{"id": "x"}', "[" * 100_000, '{"exchanges": 3}', '{"exchanges": [{"messages": [1]}]}', '"\\'],
    )
    def test_a_broken_line_is_named(self, folder, line):
        first, second = (folder / "labels.jsonl").read_text().splitlines()
        (folder / "labels.jsonl").write_text("\n".join([first, line, second]) + "\n")
        with pytest.raises(UsageError, match=r"labels\.jsonl, line 2: "):
            read_labels(folder)

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
    def test_numbers_are_finite(self, folder, number):
        for name in ("probs", "id"):
            line = label(1).model_dump(mode="json") | {name: "NUMBER" if name == "id" else ["NUMBER", 0.5]}
            first = (folder / "labels.jsonl").read_text().splitlines()[0]
            text = json.dumps(line).replace('"NUMBER"', number)
            (folder / "labels.jsonl").write_text(f"{first}\n{text}\n")
            with pytest.raises(UsageError, match=rf"line 2: {name}"):
                read_labels(folder)

    def test_a_message_that_quotes_the_file_is_one_line_that_steers_no_terminal(self, folder):
        change_line(folder / "labels.jsonl", 1, lambda row: row | {"\x1b[2J one\ntwo" + "o" * 1000: 1})
        with pytest.raises(UsageError, match="line 2: one twooo") as error:
            read_labels(folder)
        assert len(str(error.value)) < 600
        assert "\x1b" not in str(error.value)

    def test_probabilities_that_fit_no_actions_are_refused(self, folder):
        change_line(folder / "labels.jsonl", 1, lambda row: row | {"probs": [1.0]})
        with pytest.raises(UsageError, match="line 2: .*state 1 has 1 probabilities for 2 actions"):
            read_labels(folder)

    def test_a_line_that_is_being_written_is_left_out(self, folder):
        file = folder / "labels.jsonl"
        file.write_bytes(file.read_bytes()[:-10])
        assert [row.id for row in read_labels(folder)] == [0]

    def test_a_newer_format_is_refused(self, folder):
        file = folder / "evaluation.json"
        file.write_text(file.read_text().replace('"format": 3', '"format": 4'))
        with pytest.raises(UsageError, match="has format 4, and this lvlm2p reads formats up to 3: upgrade"):
            read_evaluation(folder)

    def test_an_evaluation_of_something_else_is_refused(self, folder):
        """The scripts evaluate students into a file of their own, which used to have the same name."""
        (folder / "evaluation.json").write_text('{"env_id": "MiniGrid-LavaGapS7-v0", "greedy": {"success": 1.0}}')
        with pytest.raises(UsageError, match="has no number of its format: `lvlm2p evaluate` did not write it"):
            read_evaluation(folder)
        with pytest.raises(UsageError, match="has no number of its format"):
            EvaluationFolder(folder, ARGUMENTS)

    def test_a_folder_without_an_evaluation_is_named(self, tmp_path):
        with pytest.raises(UsageError, match="is no evaluation: it has no evaluation.json"):
            read_evaluation(tmp_path)


class TestFormat1:
    """A folder that version 0.1.0 wrote: three states of LavaGapS5, by a teacher that errs and misreads."""

    def test_it_is_read_in_whole(self):
        labels, metrics = read_labels(FORMAT_1), read_evaluation(FORMAT_1).metrics
        computed = compute_metrics(labels, read_folder(FORMAT_1)[2], run_views=0)
        assert computed.price == metrics.price
        assert computed.analysis.headings == metrics.analysis.headings
        assert computed.analysis.pose.low == pytest.approx(metrics.analysis.pose.low)
        assert metrics.rollouts["sampled"].length == 6
        for row in labels:
            assert [message.picture for message in row.exchanges[0].messages] == [None, row.picture]
            assert read_picture(FORMAT_1, row.picture.digest) is not None

    def test_the_report_shows_it(self):
        page = render(from_evaluation(FORMAT_1))
        assert page.count("<article") == page.count("<image") == 3
        assert page.count("with the picture above") == 6

    def test_it_is_resumed_in_the_new_format(self, tmp_path):
        shutil.copytree(FORMAT_1, tmp_path / "e")
        values = read_evaluation(FORMAT_1).model_dump(include=set(EvaluationArguments.model_fields))
        with EvaluationFolder(tmp_path / "e", EvaluationArguments(**values)) as folder:
            assert len(folder.labels) == 3
            folder.add_label(label(3))
            folder.save(compute_metrics(folder.labels, folder.episodes), complete=True)
        assert [row.id for row in read_labels(tmp_path / "e")] == [0, 1, 2, 3]
        assert json.loads((tmp_path / "e/evaluation.json").read_text())["format"] == 3

    def test_rollouts_that_never_were_are_none(self, tmp_path):
        shutil.copytree(FORMAT_1, tmp_path / "e")
        file = tmp_path / "e/evaluation.json"
        content = json.loads(file.read_text())
        none = {"success": None, "return": None, "length": None}
        content["card"]["episodes"] = {"argmax": none, "sampled": none}
        file.write_text(json.dumps(content))
        assert read_evaluation(tmp_path / "e").metrics.rollouts == {}


class TestForeignFolders:
    """A folder that somebody else made is data."""

    @pytest.mark.parametrize("name", ["evaluation.json", "labels.jsonl", "episodes.jsonl"])
    def test_a_link_out_of_the_folder_is_not_followed(self, folder, tmp_path, name):
        (folder / name).rename(tmp_path / "outside")
        (folder / name).symlink_to(tmp_path / "outside")
        before = (tmp_path / "outside").read_bytes()
        with pytest.raises(UsageError, match=f"{name} is no plain file of this folder"):
            from_evaluation(folder)
        with pytest.raises(UsageError, match=f"{name} is no plain file of this folder"):
            EvaluationFolder(folder, ARGUMENTS)
        assert (tmp_path / "outside").read_bytes() == before

    def test_neither_is_one_of_the_pictures(self, folder, tmp_path):
        (tmp_path / "secret.png").write_bytes(PICTURE.png)
        (folder / "pictures" / "stolen.png").symlink_to(tmp_path / "secret.png")
        assert read_picture(folder, "stolen") is None
        (folder / "pictures").rename(tmp_path / "pictures")
        (folder / "pictures").symlink_to(tmp_path / "pictures")
        assert read_picture(folder, PICTURE.digest) is None
        with EvaluationFolder(folder, ARGUMENTS) as writer, pytest.raises(UsageError, match="no plain file"):
            writer.add_label(label(2))

    @pytest.mark.parametrize("digest", ["../secret", "/etc/passwd", "", "a/b", "a.b", "x" * 129, "\x00"])
    def test_a_digest_cannot_leave_the_folder(self, folder, tmp_path, digest):
        (tmp_path / "secret.png").write_bytes(PICTURE.png)
        assert read_picture(folder, digest) is None
        change_line(folder / "labels.jsonl", 0, lambda row: row | {"picture": digest})
        with pytest.raises(UsageError, match="line 1: picture.*is no digest of a picture"):
            read_labels(folder)

    @pytest.mark.parametrize("name", ["evaluation.json", "labels.jsonl", "pictures/pipe.png", "evaluation.lock"])
    def test_a_pipe_makes_nobody_wait(self, folder, name):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        if name == "pictures/pipe.png":
            assert read_picture(folder, "pipe") is None
        else:
            with pytest.raises(UsageError, match=f"{name} is no plain file"):
                EvaluationFolder(folder, ARGUMENTS)

    def test_a_loop_of_links_is_an_error_like_any_other(self, folder):
        (folder / "labels.jsonl").unlink()
        (folder / "labels.jsonl").symlink_to("labels.jsonl")
        with pytest.raises(UsageError, match="labels.jsonl"):
            read_labels(folder)

    @pytest.mark.parametrize("name", ["evaluation.json", "labels.jsonl"])
    def test_sizes_are_limited(self, folder, name):
        with (folder / name).open("r+b") as fp:
            fp.truncate(65 * 2**20)  # zeros that take no room on the disk
            fp.seek(0)
            fp.write(b"[" * 5000)
        with pytest.raises(UsageError, match="64 MB"):
            from_evaluation(folder)

    def test_a_picture_file_that_is_too_large_is_as_good_as_missing(self, folder):
        with (folder / "pictures" / "big.png").open("wb") as fp:
            fp.truncate(65 * 2**20)
        assert read_picture(folder, "big") is None


WRITER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.evaluation.test_folder import ARGUMENTS
from lvlm2p_wrappers.evaluation import EvaluationFolder
folder = EvaluationFolder(Path({path!r}), ARGUMENTS)
print("open", flush=True)
time.sleep(600)
"""


class TestTwoProcesses:
    def test_the_second_one_is_told_of_the_first_and_a_dead_one_holds_nothing(self, tmp_path):
        """Two evaluations in one folder used to write every row twice."""
        code = WRITER.format(root=str(Path(__file__).parents[2]), path=str(tmp_path / "e"))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
            try:
                assert first.stdout.readline() == "open\n"
                with pytest.raises(UsageError, match=rf"written by another .*\(process {first.pid} on .*--out"):
                    EvaluationFolder(tmp_path / "e", ARGUMENTS)
            finally:
                first.kill()
        with EvaluationFolder(tmp_path / "e", ARGUMENTS) as folder:
            folder.add_label(label())
        assert [row.id for row in read_labels(tmp_path / "e")] == [0]

    def test_a_folder_of_something_else_gets_no_lock_file(self, tmp_path):
        (tmp_path / "precious.txt").write_text("mine")
        with pytest.raises(UsageError, match="something else"):
            EvaluationFolder(tmp_path, ARGUMENTS)
        assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value, path=()):
    """The paths to everything inside a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def like(value):
    """Values that may pass for this one, and others."""
    kinds = {int: st.integers(), float: st.floats() | st.floats(-1, 2), str: st.text(max_size=8), bool: st.booleans()}
    return kinds.get(type(value), JSON) | JSON


def changed(value, path, data):
    """The value with something else at the end of the path."""
    if not path:
        return data.draw(like(value))
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = changed(value[path[0]], path[1:], data)
    return copied


@pytest.mark.slow
@pytest.mark.parametrize("source", ["now", "format_1"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_folder_holds_it_is_shown_or_refused_in_one_line(folder, tmp_path, source, data):
    """Anything may stand anywhere in the files: there is a page, or one line that says why not."""
    shutil.rmtree(tmp_path / "fuzzed", ignore_errors=True)
    shutil.copytree(folder if source == "now" else FORMAT_1, tmp_path / "fuzzed")
    file = tmp_path / "fuzzed" / data.draw(st.sampled_from(["evaluation.json", "labels.jsonl", "episodes.jsonl"]))
    if data.draw(st.booleans()):
        noise = data.draw(st.binary(max_size=20))
        content = file.read_bytes()
        at = data.draw(st.integers(0, len(content)))
        file.write_bytes(content[:at] + noise + content[at + data.draw(st.integers(0, 20)) :])
    else:
        lines = [file.read_text()] if file.suffix == ".json" else file.read_text().splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        value = json.loads(lines[number])
        lines[number] = json.dumps(changed(value, data.draw(st.sampled_from(list(places(value)))), data))
        file.write_text("\n".join(lines) + "\n")
    for picture in (tmp_path / "fuzzed" / "pictures").iterdir():
        content = picture.read_bytes()
        at = data.draw(st.integers(0, len(content)))
        picture.write_bytes(content[:at] + data.draw(st.binary(max_size=8)) + content[at + 4 :])
    try:
        page = render(from_evaluation(tmp_path / "fuzzed"))
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        parse(page)
        page.encode()

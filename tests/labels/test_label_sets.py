"""Label sets: made by ``lvlm2p label``, resumed, read back, and refused where they hold what is no label."""

import json
import math
import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from minigrid.wrappers import ImgObsWrapper

from lvlm2p_wrappers import AgentCentredObservation, Teacher, UsageError, read_labels
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.labels import arrow
from lvlm2p_wrappers.labels import folder as folder_module
from lvlm2p_wrappers.labels.folder import LabelFolder
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.views import viewer, with_lines
from tests.provider import FAULTS

pa = pytest.importorskip("pyarrow", reason="label sets need the extra `labels`")
import pyarrow.parquet as pq  # noqa: E402

LAVA = "MiniGrid-LavaGapS5-v0"
PLANNER = "embedded/minigrid-planner"
GPT = "openai/gpt-4o-mini"


@pytest.fixture
def label(capsys):
    """Runs ``lvlm2p label ... --out labels --json``; returns what it prints, or what it complains of."""

    def run(*args, env_id=LAVA, model=PLANNER, code=0, out="labels"):
        assert main(["label", env_id, "--model", model, "--out", str(out), *map(str, args), "--json"]) == code
        told = capsys.readouterr()
        return json.loads(told.out) if told.out.strip() else told.err

    return run


@pytest.fixture
def labels(label):
    """The folder of twelve labels of the embedded teacher."""
    label("--states", 12)
    return "labels"


def edited(folder, change, name="labels-00000"):
    """Write a label set's rows anew after ``change`` has had them as a list of dicts."""
    file = f"{folder}/data/{name}.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def redescribed(folder, **changes):
    """Write what a label set says of itself anew."""
    file = f"{folder}/data/labels-00000.parquet"
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[b"lvlm2p"]) | changes
    pq.write_table(table.replace_schema_metadata({b"lvlm2p": json.dumps(about)}), file)


def make_envs(env_id=LAVA, wrap=AgentCentredObservation):
    return gym.vector.SyncVectorEnv([lambda: wrap(gym.make(env_id))] * 2)


class TestMaking:
    def test_a_set_holds_what_the_teacher_was_shown_and_said(self, labels):
        found = read_labels(labels)
        assert len(found) == 12
        with Teacher(PLANNER, store=None) as teacher:
            advice = [teacher.advise(view) for view in found.views()]
        assert [each.probs.tolist() for each in advice] == found.probs.tolist()
        assert [each.analysis for each in advice] == found.table["analysis"].to_pylist()
        said = [json.loads(reply)["probabilities"] for reply in found.table["action"].to_pylist()]
        # Nothing is asked about the other four actions.
        assert np.allclose([[*each.values(), 0, 0, 0, 0] for each in said], found.probs, atol=1e-5)

    def test_observations_are_those_of_the_states_in_the_pictures(self, labels):
        """In this environment picture and observation tell the same, so that each picture has one of its own."""
        found = read_labels(labels)
        envs = make_envs()
        observations, probs = found.for_student(envs)
        assert all(observation in envs.single_observation_space for observation in observations)
        assert probs is found.probs
        assert len({observation.tobytes() for observation in observations}) == 12

    def test_hugging_faces_datasets_finds_the_rows_and_knows_which_columns_are_pictures(self, labels):
        card = Path(labels, "README.md").read_text()
        assert re.match(r"---\n(.*\n)*configs:\n- config_name: default\n  data_files:\n  - split: train\n", card)
        assert "path: data/*.parquet" in card.split("---")[1]
        schema = pq.read_schema(f"{labels}/data/labels-00000.parquet")
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert [*features] == schema.names
        assert features["image"] == {"_type": "Image"}
        assert features["probs"] == {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
        assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"

    def test_the_card_says_that_the_embedded_teacher_is_no_model(self, labels):
        assert "scripted stand-in" in Path(labels, "README.md").read_text()

    def test_a_cost_is_what_was_billed_also_for_answers_out_of_the_store(self, label, provider):
        first = label("--states", 4, model=GPT)
        label("--states", 4, model=GPT, out="again")
        costs = read_labels("again").table["cost_usd"].to_pylist()
        assert sum(costs) == pytest.approx(first["cost_usd"]) == pytest.approx(provider.cost_usd)
        assert costs == read_labels("labels").table["cost_usd"].to_pylist()

    def test_a_view_whose_reply_stays_bad_gets_no_row_and_is_counted(self, label, provider):
        provider.faults = lambda seen: FAULTS["sum_7"] if seen.asks_for_an_action and seen.digest[0] % 2 else None
        told = label("--states", 12, model=GPT)
        assert 0 < told["without_label"] == 12 - told["labels"]
        assert len(read_labels("labels")) == told["labels"]
        assert told["complete"]


class TestResuming:
    def test_a_set_goes_on_after_its_budget_was_spent_and_no_question_is_asked_twice(self, label, provider):
        told = label("--states", 10, "--budget-calls", 7, "--concurrency", 1, model=GPT, code=1)
        assert not told["complete"]
        assert len(read_labels("labels")) == 3
        told = label("--states", 10, model=GPT)
        assert (told["labels"], told["new"], told["complete"]) == (10, 7, True)
        asked = [(exchange.seen.digest, exchange.seen.asks_for_an_action) for exchange in provider.log]
        assert len(asked) == len(set(asked)) == 20

    def test_a_finished_set_asks_nothing_and_more_states_add_only_new_ones(self, label, provider):
        provider.latency = 0.01
        label("--states", 6, model=GPT)
        assert label("--states", 6, model=GPT)["calls"] == 0
        before = read_labels("labels").table["view"].to_pylist()
        told = label("--states", 9, model=GPT)
        assert (told["labels"], told["new"], told["calls"]) == (9, 3, 6)
        assert read_labels("labels").table["view"].to_pylist()[:6] == before

    def test_rows_fill_files_and_the_last_file_grows(self, label, monkeypatch):
        monkeypatch.setattr(folder_module, "ROWS", 4)
        label("--states", 6)
        label("--states", 11)
        assert [len(pq.read_table(f"labels/data/labels-0000{i}.parquet")) for i in range(3)] == [4, 4, 3]
        assert len(set(read_labels("labels").table["view"].to_pylist())) == 11

    @pytest.mark.parametrize(
        ("args", "told"),
        [
            (["--prompts", "default"], "prompts 'minigrid', not 'default'; fingerprint"),
            (["--observation", "none"], "observation"),
        ],
    )
    def test_a_set_of_another_prompt_set_or_observation_is_not_added_to(self, label, args, told):
        label("--states", 2)
        assert f"holds labels with {told}" in label(*args, code=2)

    def test_a_set_of_another_teacher_is_not_added_to(self, label):
        label("--states", 2)
        assert f"model '{PLANNER}', not '{PLANNER}?error=0.1'" in label(model=f"{PLANNER}?error=0.1", code=2)

    def test_two_commands_do_not_write_into_one_folder(self, label, labels):
        with LabelFolder(Path(labels), read_labels(labels).info):
            assert "being written by another" in label("--states", 12, code=2)

    def test_a_folder_of_something_else_is_left_alone(self, label, tmp_path):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
        assert "holds something else" in label(out=tmp_path / "thesis", code=2)
        assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


class TestFrames:
    def test_a_folder_of_pictures_is_labelled_with_the_missions_that_it_tells(self, label, provider, tmp_path):
        env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
        (tmp_path / "frames").mkdir()
        rows = []
        for seed in range(3):
            env.reset(seed=seed)
            view = viewer(env).view()
            (tmp_path / f"frames/{seed}.png").write_bytes(view.picture.png)
            rows.append(json.dumps({"file_name": f"{seed}.png", "mission": f"fetch number {seed}"}))
        (tmp_path / "frames/metadata.jsonl").write_text("\n".join(rows))
        label("--states-from", tmp_path / "frames", env_id="MiniGrid-Fetch-6x6-N2-v0", model=GPT)
        found = read_labels("labels")
        assert found.table["source"].to_pylist() == ["0.png", "1.png", "2.png"]
        assert found.table["mission"].to_pylist() == [f"fetch number {seed}" for seed in range(3)]
        asked = {exchange.seen.pictures[-1]: exchange.seen.turns[-1].text for exchange in provider.log}
        for seed in range(3):
            assert (
                f"fetch number {seed}"
                in asked[with_lines(SavedPicture((tmp_path / f"frames/{seed}.png").read_bytes())).png]
            )

    def test_another_teacher_labels_the_pictures_of_a_set(self, label, labels):
        label("--states-from", labels, model=f"{PLANNER}?error=0.5", out="others")
        first, second = read_labels(labels), read_labels("others")
        assert first.table["view"].to_pylist() == second.table["view"].to_pylist()
        assert np.array_equal(first.observations, second.observations)
        assert not np.array_equal(first.probs, second.probs)

    def test_a_parquet_file_of_others_is_labelled(self, label, labels):
        images = read_labels(labels).table["image"].to_pylist()
        pq.write_table(pa.table({"image": [image["bytes"] for image in images], "n": [*range(12)]}), "frames.parquet")
        assert label("--states-from", "frames.parquet", out="others")["labels"] == 12

    @pytest.mark.parametrize(
        ("content", "told"),
        [(b"GIF89a no picture", "it is no PNG file"), (None, "at least 32x32")],
    )
    def test_what_is_no_picture_is_told_before_it_is_asked_about(self, label, provider, tmp_path, content, told):
        (tmp_path / "frames").mkdir()
        small = Picture(np.zeros((8, 8, 3), np.uint8)).png
        (tmp_path / "frames/a.png").write_bytes(content or small)
        assert told in label("--states-from", tmp_path / "frames", model=GPT, code=2)
        assert not provider.log

    @pytest.mark.parametrize("where", ["nowhere", "nowhere.parquet", "minari:no/such-v0"])
    def test_frames_that_are_not_there_are_told(self, label, where):
        if where.startswith("minari:"):
            pytest.importorskip("minari")
        assert where.removeprefix("minari:") in label("--states-from", where, code=2)

    def test_a_minari_dataset_without_pictures_is_played_again(self, label, recorded):
        """What a teacher is shown of MiniGrid is no observation: the episodes are repeated from their seeds."""
        drawn = recorded()
        label("--states-from", "minari:lava/random-v0")
        shown = [view.picture.digest for view in read_labels("labels").views()]
        assert [*dict.fromkeys(drawn)] == shown

    def test_an_episode_that_ends_otherwise_when_it_is_played_again_is_not_labelled(self, label, recorded):
        recorded(more_reward=1)
        assert "played again, its step 0 ends otherwise" in label("--states-from", "minari:lava/random-v0", code=2)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Records two episodes as the Minari dataset lava/random-v0; returns the digests of what a teacher would see."""
    minari = pytest.importorskip("minari", reason="it needs Minari")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def record(more_reward=0):
        env = ImgObsWrapper(gym.make(LAVA))
        drawn, episodes = [], []
        for seed in (3, 4):
            observation, _ = env.reset(seed=seed)
            env.action_space.seed(seed)
            rows, ends = [(observation, None, 0, False, False)], (False, False)
            while not any(ends):
                drawn.append(with_lines(viewer(env).view().picture).digest)
                action = env.action_space.sample()
                observation, reward, *ends, _ = env.step(action)
                rows.append((observation, action, reward + more_reward, *ends))
            seen, *columns = zip(*rows, strict=True)
            episodes.append(EpisodeBuffer(len(episodes), seed, None, [*seen], *([*column[1:]] for column in columns)))
        minari.create_dataset_from_buffers("lava/random-v0", episodes, env=env, data_format="arrow")
        return drawn

    return record


class TestReading:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda row: row.update(probs=[math.nan, *row["probs"][1:]]), "is no distribution"),
            (lambda row: row.update(probs=[-0.5, 1.5, 0, 0, 0, 0, 0]), "is no distribution"),
            (lambda row: row.update(probs=[0.25] * 7), "is no distribution"),
            (lambda row: row.update(probs=[0.5, 0.5]), "2 probabilities for 7 actions"),
            (lambda row: row.update(probs=None), "probs is missing"),
            (lambda row: row.update(actions=["up", "down"]), "other actions"),
            (lambda row: row.update(prompts="another"), "another prompt set"),
            (lambda row: row.update(observation=b"short"), "its observation has 5 bytes"),
            (lambda row: row["image"].update(bytes=b"GIF89a"), "its picture cannot be used"),
            (lambda row: row["image"].update(bytes=row["image"]["bytes"][:-30]), "its picture cannot be used"),
            (lambda row: row.update(image=None), "image is missing"),
        ],
    )
    def test_a_row_that_is_no_label_is_named(self, labels, change, told):
        edited(labels, lambda rows: change(rows[5]))
        with pytest.raises(UsageError, match=f"labels-00000.parquet, row 5: .*{told}"):
            read_labels(labels)

    def test_a_file_that_was_cut_in_the_middle_is_named(self, labels, label):
        file = Path(labels, "data/labels-00000.parquet")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UsageError, match=r"labels-00000.parquet is no Parquet file, is damaged, or was cut off"):
            read_labels(labels)
        assert "was cut off" in label(code=2)

    def test_a_set_of_a_newer_version_is_told_by_its_number(self, labels):
        redescribed(labels, format=9)
        with pytest.raises(UsageError, match="has format 9, and this lvlm2p reads formats up to 1"):
            read_labels(labels)

    @pytest.mark.parametrize("changes", [{"actions": 7}, {"observation": {"shape": [-1], "dtype": "object"}}])
    def test_what_a_file_says_of_itself_is_checked(self, labels, changes):
        redescribed(labels, **changes)
        with pytest.raises(UsageError, match="is damaged"):
            read_labels(labels)

    def test_a_link_out_of_the_folder_is_not_followed(self, labels, label, tmp_path):
        label("--states", 3, out=tmp_path / "private")
        (tmp_path / labels / "data/labels-00001.parquet").symlink_to(tmp_path / "private/data/labels-00000.parquet")
        with pytest.raises(UsageError, match="no plain file of this folder"):
            read_labels(labels)

    def test_files_of_two_sets_are_not_mixed(self, labels, label, tmp_path):
        label("--states", 3, model=f"{PLANNER}?error=0.2", out="other")
        (tmp_path / "other/data/labels-00000.parquet").rename(tmp_path / labels / "data/labels-00001.parquet")
        with pytest.raises(UsageError, match=r"labels-00001.parquet holds labels of another kind"):
            read_labels(labels)

    def test_a_parquet_file_of_something_else_is_no_label_set(self):
        pq.write_table(pa.table({"image": [b""]}), "other.parquet")
        with pytest.raises(UsageError, match="no file of a label set"):
            read_labels("other.parquet")

    def test_a_student_of_another_environment_is_refused(self, labels):
        with pytest.raises(UsageError, match="of the actions"):
            read_labels(labels).for_student(make_envs("MiniGrid-Dynamic-Obstacles-6x6-v0"))

    def test_a_student_that_sees_something_else_is_refused(self, labels):
        with pytest.raises(UsageError, match="student sees"):
            read_labels(labels).for_student(make_envs(wrap=ImgObsWrapper))

    def test_a_set_without_observations_says_how_to_make_one_with_them(self, label):
        label("--states", 3, "--observation", "none")
        with pytest.raises(UsageError, match="--observation"):
            read_labels("labels").for_student(make_envs())

    def test_without_pyarrow_a_message_names_the_extra(self, labels, monkeypatch):
        arrow.load_pyarrow.cache_clear()
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(UsageError, match=r"pip install 'lvlm2p\[labels\]'"):
            read_labels(labels)

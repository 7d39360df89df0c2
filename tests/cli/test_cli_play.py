"""``lvlm2p play``: a student from a file plays, and a moving picture shows it."""

import io
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from lvlm2p_wrappers import student_env
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.store import Store
from tests.algos.scripts import evaluate, ppo, train

LAVA = "MiniGrid-LavaGapS5-v0"
ABOUT = {"env_id": LAVA, "obs": "auto", "frame_stack": "None", "time_limit": "auto"}


@pytest.fixture
def student(tmp_path):
    """Writes a student that likes one action, whatever it sees."""

    def write(action=2, name="student.onnx", **about):
        about = ABOUT | about
        space = student_env(LAVA).observation_space
        actions, kind = np.eye(7, dtype=np.float32)[[action]], helper.np_dtype_to_tensor_dtype(space.dtype)
        nodes = [
            helper.make_node("ReduceSum", ["number", "axes"], ["sum"], keepdims=1),
            helper.make_node("Cast", ["obs"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "actions"], ["logits"]),
        ]
        graph = helper.make_graph(
            [nodes[1], nodes[0], *nodes[2:]],
            "student",
            [helper.make_tensor_value_info("obs", kind, ["batch", space.shape[0]])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7])],
            [
                onnx.numpy_helper.from_array(np.array([1]), "axes"),
                onnx.numpy_helper.from_array(np.float32([0]), "zero"),
                onnx.numpy_helper.from_array(9 * actions, "actions"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, {name: told for name, told in about.items() if told is not None})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


def play(capsys, *words):
    code = main(["play", *map(str, words)])
    told = capsys.readouterr()
    return code, told.err if code else told.out


def frames_of(file):
    with Image.open(io.BytesIO(file.read_bytes())) as picture:
        return picture.n_frames, picture.size


def test_the_picture_shows_every_frame_of_every_episode(student, tmp_path, capsys):
    code, told = play(capsys, student(), "--save=play.gif", "--episodes=2", "--json")
    assert code == 0
    found = json.loads(told)
    assert len(found["returns"]) == 2
    assert frames_of(tmp_path / "play.gif")[0] <= found["frames"]  # equal neighbours are one picture for longer
    assert found["bytes"] == (tmp_path / "play.gif").stat().st_size


def test_a_student_that_turns_round_plays_on_to_the_time_limit(student, capsys):
    _, told = play(capsys, student(action=0), "--save=play.gif", "--episodes=1", "--json")
    found = json.loads(told)
    assert found["frames"] == 101  # LavaGapS5 ends after 100 steps; the last picture is shown, too
    assert found["returns"] == [0]


def test_the_teachers_advice_stands_beside_the_picture_and_is_kept(student, tmp_path, capsys):
    file = student()
    play(capsys, file, "--save=plain.gif", "--episodes=1")
    code, _ = play(
        capsys, file, "--save=taught.gif", "--episodes=1", "--model=embedded/minigrid-planner", "--store=s.sqlite"
    )
    assert code == 0
    (_, plain), (_, taught) = (frames_of(tmp_path / name) for name in ("plain.gif", "taught.gif"))
    assert taught[0] > plain[0]
    with Store(tmp_path / "s.sqlite", read_only=True) as store:
        assert list(store.path)


def test_an_mp4_is_written_as_well(student, tmp_path, capsys):
    assert play(capsys, student(), "--save=play.mp4", "--episodes=1")[0] == 0
    assert (tmp_path / "play.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"env_id": "my_module:Maze-v0"}, "is in a module; add --trust to import it"),
        ({"env_id": "Nowhere-v0"}, "Nowhere-v0"),
        ({"env_id": None}, "holds no student of algos/evaluate.py: 'env_id'"),
        ({"obs": "smell"}, "smell"),
    ],
)
def test_what_the_file_says_of_its_environment_is_data(student, capsys, about, said):
    code, told = play(capsys, student(**about), "--save=play.gif")
    assert code == 2
    assert said in told
    assert told.count("\n") == 1


def test_a_file_that_is_no_student_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    for file in ("bad.onnx", "missing.onnx", tmp_path):
        code, told = play(capsys, file, "--save=play.gif")
        assert code == 2
        assert told.count("\n") == 1
    assert "python algos/evaluate.py" in told


def test_a_student_whose_weights_lie_in_another_file_is_refused(student, tmp_path, capsys):
    model = onnx.load(student())
    for weights in model.graph.initializer:
        weights.data_location = TensorProto.EXTERNAL
        weights.ClearField("raw_data")
        weights.external_data.add(key="location", value="/etc/hostname")
    (tmp_path / "outside.onnx").write_bytes(model.SerializeToString())
    code, told = play(capsys, "outside.onnx", "--save=play.gif")
    assert code == 2
    assert "holds no student" in told


def test_an_existing_file_and_another_kind_of_picture_are_refused(student, tmp_path, capsys):
    file = student()
    (tmp_path / "play.gif").write_text("mine")
    for save in ("play.gif", "play.png"):
        assert play(capsys, file, f"--save={save}")[0] == 2
    assert (tmp_path / "play.gif").read_text() == "mine"
    assert play(capsys, file, "--save=play.gif", "--episodes=1", "--force")[0] == 0


@pytest.mark.slow
def test_a_trained_student_plays_from_its_runs_folder(capsys):
    _, run_dir = train(ppo, env_id=LAVA, lam=0)
    assert "evaluate.py" in play(capsys, run_dir, "--save=play.gif")[1]
    evaluate.main(evaluate.Args(run_dir, episodes=2))
    capsys.readouterr()
    code, told = play(capsys, run_dir, "--save=play.gif", "--sampled")
    assert code == 0
    assert "3 episodes, mean return" in told

"""``lvlm2p scripts`` copies the training scripts."""

import json
from pathlib import Path

from lvlm2p_wrappers.cli import main

ALGOS = Path(__file__).resolve().parents[2] / "algos"


def test_every_script_is_copied_word_for_word(tmp_path, capsys):
    assert main(["scripts", str(tmp_path / "new" / "folder"), "--json"]) == 0
    copies = [Path(name) for name in json.loads(capsys.readouterr().out)]
    assert {copy.name for copy in copies} == {script.name for script in ALGOS.glob("*.py")}
    assert all(copy.read_bytes() == (ALGOS / copy.name).read_bytes() for copy in copies)


def test_a_changed_script_is_replaced_by_force_only_and_the_others_wait_for_it(tmp_path, capsys):
    mine = tmp_path / "ppo_lvlm2p.py"
    mine.write_text("mine")
    assert main(["scripts", str(tmp_path)]) == 2
    assert "ppo_lvlm2p.py exists: give another folder" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [mine]
    assert mine.read_text() == "mine"
    assert main(["scripts", str(tmp_path), "--force"]) == 0
    assert mine.read_bytes() == (ALGOS / mine.name).read_bytes()


def test_a_folder_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["scripts", str(tmp_path / "file" / "folder")]) == 2
    assert "give a folder that can be written" in capsys.readouterr().err

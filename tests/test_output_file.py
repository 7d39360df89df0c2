"""Files that a user named: what is replaced, what never is, and that nothing is left half written."""

import os
import socket
import sqlite3
import stat

import pytest

from lvlm2p_wrappers import UsageError
from lvlm2p_wrappers.output_file import format_of, output_file
from lvlm2p_wrappers.store import Store, export
from tests.store.store_samples import ANSWER, CALL


def write(path, content=b"new", **options):
    with output_file(path, **options) as fp:
        fp.write(content)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        store.record(CALL, ANSWER)
        yield store


def test_a_new_file_has_the_permissions_that_any_new_file_has(tmp_path):
    write(tmp_path / "file")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("force", [False, True])
def test_a_store_is_never_overwritten(tmp_path, store, force):
    """A report, a picture or an export is written over the store, and 1,446 answers are gone."""
    before = {file.name: file.read_bytes() for file in tmp_path.glob("store.sqlite*")}
    assert "store.sqlite-wal" in before
    for name in before:
        if not name.endswith("-shm"):
            with pytest.raises(UsageError, match=f"{name} is a store of answers.*never overwritten"):
                write(tmp_path / name, force=force)
    assert store.get(CALL.key) == ANSWER
    sqlite3.connect(tmp_path / "any.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(UsageError, match="never overwritten"):
        write(tmp_path / "any.db", force=force)


def test_a_link_to_a_store_is_no_way_around_that(tmp_path, store):
    (tmp_path / "page.html").symlink_to(store.path)
    with pytest.raises(UsageError, match="never overwritten"):
        write(tmp_path / "page.html", force=True)


def test_files_of_ours_are_replaced_by_their_like_only(tmp_path, store):
    with (tmp_path / "labels.jsonl").open("w") as fp:
        export(store, fp)
    (tmp_path / "page.html").write_text('<!doctype html>\n<meta name="generator" content="lvlm2p report">')
    (tmp_path / "evaluation.json").write_text('{"format": 1, "env_id": "x", "fingerprint": "y"}')
    formats = {"labels.jsonl": "export", "page.html": "report", "evaluation.json": "evaluation"}
    for name, kind in formats.items():
        assert format_of(tmp_path / name) == kind
        for other in {"export", "report", "evaluation", None} - {kind}:
            with pytest.raises(UsageError, match="never overwritten"):
                write(tmp_path / name, kind=other, force=True)
    for name in ("page.html", "evaluation.json"):  # made again at no cost
        write(tmp_path / name, kind=formats[name])
    with pytest.raises(UsageError, match="--force"):
        write(tmp_path / "labels.jsonl", kind="export")
    write(tmp_path / "labels.jsonl", kind="export", force=True)


def test_another_file_is_replaced_only_by_force(tmp_path):
    (tmp_path / "thesis.txt").write_bytes(b"years of work")
    with pytest.raises(UsageError, match="thesis.txt exists: name another file, or add --force"):
        write(tmp_path / "thesis.txt", kind="report")
    assert (tmp_path / "thesis.txt").read_bytes() == b"years of work"
    write(tmp_path / "thesis.txt", kind="report", force=True)
    assert (tmp_path / "thesis.txt").read_bytes() == b"new"


def test_a_link_to_a_file_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_what_is_no_plain_file_is_refused_whatever_the_force(tmp_path):
    """A device node or a named pipe is written to, or waited for without an end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)
    listener.bind("socket")
    for path in ("pipe", "link", "socket", "/dev/null", "/dev/full", ".", ""):
        with pytest.raises(UsageError, match="name a file"):
            write(type(tmp_path)(path), force=True)
    listener.close()


@pytest.mark.parametrize("path", ["missing/file", "x" * 300, "file/inside"])
def test_a_name_that_cannot_be_written_is_told_in_one_line(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError) as told:
        write(tmp_path / path)
    assert "\n" not in str(told.value)


def test_the_longest_name_that_the_disk_takes_can_be_written(tmp_path):
    write(tmp_path / ("x" * 255))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path, error):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises((UsageError, KeyboardInterrupt)), output_file(tmp_path / "file", force=True) as fp:
        fp.write(b"half")
        raise error
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


def test_files_of_others_that_end_in_part_are_left_alone(tmp_path):
    """FILE.part of somebody else, or a link of that name, is overwritten and deleted."""
    (tmp_path / "file.part").write_bytes(b"another's download")
    write(tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == b"another's download"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "file.part"]

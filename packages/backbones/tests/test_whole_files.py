"""Where a file is written whole: its place, the place that a link names, and what is no file at all."""

import os
import shutil
import threading
from multiprocessing import get_context

import pytest
from unveil_backbones.whole_files import unfinished_folder, write_whole


def test_what_a_link_names_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.xml"
    link.symlink_to(tmp_path / "real" / "file.xml")
    for content in ("first", "second"):  # the file is not there at first
        write_whole(link, content)
        assert link.is_symlink()
        assert (tmp_path / "real" / "file.xml").read_text() == content
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["file.xml"]


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "<testsuite/>")
    reader.join(10)
    assert read == ["<testsuite/>"]
    assert pipe.is_fifo()


def _killed_while_filling(path):
    with unfinished_folder(path) as folder:
        (folder / "half").write_text("")
        os._exit(9)


def test_what_a_killed_process_left_of_a_folder_goes_and_what_another_fills_stays(tmp_path):
    child = get_context("spawn").Process(target=_killed_while_filling, args=(tmp_path / "out",))
    child.start()
    child.join(30)
    (left,) = tmp_path.iterdir()
    assert child.exitcode == 9
    assert (left / "half").is_file()
    with unfinished_folder(tmp_path / "other"):  # not of this path
        assert left.is_dir()
    with unfinished_folder(tmp_path / "out") as first, unfinished_folder(tmp_path / "out") as second:
        assert not left.exists()
        assert {*tmp_path.iterdir()} == {first, second}
        second.rename(tmp_path / "out")
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_a_folder_that_was_not_finished_is_removed(tmp_path):
    def fill():
        with unfinished_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("")
            raise ValueError("fault")

    with pytest.raises(ValueError, match="fault"):
        fill()
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_removed_refuses_nothing(tmp_path, monkeypatch):
    left = tmp_path / ".out.00000000.tmp"
    left.mkdir()
    (tmp_path / ".out.11111111.tmp").symlink_to(tmp_path)

    def refuse(folder, *, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(13, "somebody else's", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refuse)
        with unfinished_folder(tmp_path / "out") as folder:
            folder.rename(tmp_path / "out")
    assert {file.name for file in tmp_path.iterdir()} == {".out.00000000.tmp", ".out.11111111.tmp", "out"}

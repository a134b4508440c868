"""Where a file is written whole: its place, the place that a link names, and what is no file at all."""

import os
import threading

from unveil_backbones.whole_files import write_whole


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

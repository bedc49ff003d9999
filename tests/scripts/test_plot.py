"""The programs that draw a record and write its page."""

import json
import sys

import pytest

from scripts import plot, report


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(program, path):
        monkeypatch.setattr(sys, "argv", ["x.py", "--metrics", str(path), "--output_dir", str(tmp_path / "out")])
        program.main()

    return run


def test_pictures_and_page_are_written_and_may_replace_their_own(run, evaluated, tmp_path, capsys):
    for _ in range(2):
        run(plot, evaluated / "metrics.json")
        run(report, evaluated / "metrics.json")
    names = ["error.png", "error.svg", "report.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert capsys.readouterr().out.splitlines()[:3] == [str(tmp_path / "out" / name) for name in names]
    assert "evaluated on linear regression, 3 dimensions" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("program", [plot, report], ids=lambda program: program.__name__)
@pytest.mark.parametrize("content", [b"{", b"[]", b"\x89PNG", json.dumps({"settings": {}}).encode()])
def test_a_file_that_is_no_metrics_is_refused(program, content, run, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"error: .*metrics\.json") as refused:
        run(program, path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()

"""Every entry point for settings and rows goes through one limit: just under is read, just over is refused."""

import pytest

from avllm import config, textfile
from tests.entry_points.texts import ROWS, SETTINGS


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=[entry.name for entry in entries])


@pytest.mark.parametrize("more", [0, -1], ids=["under", "over"])
@named(SETTINGS)
def test_settings_of_a_byte_too_many_are_refused(entry, more, tmp_path, monkeypatch):
    source = tmp_path / f"settings{entry.suffix}"
    source.write_text(entry.content)
    monkeypatch.setattr(config, "MAX_YAML_BYTES", source.stat().st_size + more)

    told = entry.use(source, tmp_path / "out")

    assert (f"at most {config.MAX_YAML_BYTES} is read" in told) == (more < 0), told


@pytest.mark.parametrize("more", [0, -1], ids=["under", "over"])
@named(ROWS)
def test_a_line_of_a_byte_too_many_is_refused(entry, more, tmp_path, monkeypatch):
    source, out = tmp_path / f"rows{entry.suffix}", tmp_path / "out"
    source.write_text(entry.content)
    out.mkdir()
    monkeypatch.setattr(textfile, "LONGEST_LINE", len(entry.content) + more)

    told = entry.use(source, out)

    assert (f"longer than {textfile.LONGEST_LINE} bytes" in told) == (more < 0), told

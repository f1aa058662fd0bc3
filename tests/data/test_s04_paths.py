"""Names of media in a data set stay below its folder, however they are spelt."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from avllm.data.records import media_path
from avllm.errors import DataError, MediaError
from avllm.media import open_image, resolve

CANARY = (1, 254, 1)
SPELLINGS = [
    "../secret.png",
    "a/../../secret.png",
    "./a/./../../secret.png",
    "a//..//..//secret.png",
    ".//../secret.png",
    "..",
    "../root-beside/secret.png",
    "../root/../secret.png",
    "{outside}/secret.png",
    "/{outside}/secret.png",
    "{root}/../secret.png",
    "{root}-beside/secret.png",
    "/proc/self/root{outside}/secret.png",
    "/proc/self/cwd/../secret.png",
    "/dev/fd/0",
    "/etc/passwd",
    "..%2fsecret.png",
    "%2e%2e/secret.png",
    "..%252fsecret.png",
    "....//secret.png",
    "..\\secret.png",
    "\\windows\\win.ini",
    "C:\\secret.png",
    "~/secret.png",
    "$HOME/secret.png",
    " ../secret.png",
    "\u2025/secret.png",
    "\uff0e\uff0e/secret.png",
    "../secret.png\0.png",
    "a.png\0/../../secret.png",
    "file:{outside}/secret.png",
    "file://{outside}/secret.png",
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of data, with a picture outside of it that nobody may see."""
    for folder in (tmp_path, tmp_path / "root-beside"):
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), CANARY).save(folder / "secret.png")
    (tmp_path / "root" / "a").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "root" / "a.png")
    monkeypatch.chdir(tmp_path / "root")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "root"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_s04_no_spelling_leads_out_of_the_folder(root, spelling):
    name = spelling.format(outside=root.parent, root=root)
    for given in (name, quote(name)):
        try:
            path = media_path(root, given, "row 1.image")
        except DataError:
            continue
        assert Path(os.path.normpath(path)).is_relative_to(root)
        with pytest.raises(MediaError, match=r"cannot be opened|NUL"):
            open_image(path)


@pytest.mark.parametrize("name", ["a.png", "./a.png", "a/../a.png", "{root}/a.png", "{root}/a/../a.png"])
def test_s04_names_below_the_folder_are_taken(root, name):
    path = media_path(root, name.format(root=root), "row 1.image")
    assert open_image(path).frames[0, 0, 0].tolist() == [255, 0, 0]


def test_s04_a_source_is_read_from_the_file_that_was_looked_at_or_not_at_all(root):
    """A name that has become another file is read as what it is then, under another key."""
    path = root / "a.png"
    source = resolve(path)
    key = source.digest
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(MediaError, match=r"a\.png: not a regular file"):
        open_image(source)
    path.unlink()
    Image.new("RGB", (4, 4), "blue").save(path)
    assert source.digest != key
    assert open_image(source).frames[0, 0, 0].tolist() == [0, 0, 255]

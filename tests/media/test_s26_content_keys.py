"""Equal contents have equal keys, however they are handed over; anything that changes what is read changes the key."""

import io
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from avllm.errors import MediaError
from avllm.media import Sampling, content_key, digests, open_image, open_video, resolve


def test_the_key_is_of_the_content_and_not_of_the_name(tmp_path):
    first, second = tmp_path / "a.mp4", tmp_path / "b c.mp4"
    first.write_bytes(b"content")
    second.write_bytes(b"content")
    key = content_key(first, {})
    assert content_key(str(second), {}) == key
    assert content_key(second.as_uri(), {}) == key
    first.write_bytes(b"other")
    assert content_key(first, {}) != key


def test_the_key_tells_how_it_is_read(tmp_path):
    keys = {content_key(b"x", options) for options in ({}, {"kind": "video"}, {"kind": "audio"}, {"num_frames": 4})}
    assert len(keys) == 4
    assert content_key(b"x", {"a": 1, "b": 2}) == content_key(b"x", {"b": 2, "a": 1})


def test_s26_arrays_of_equal_bytes_and_other_shape_differ():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert content_key(frames, {}) == content_key(frames.copy(), {})
    assert content_key(frames, {}) != content_key(frames.reshape(2, 2, 8, 3), {})
    assert content_key([frames[0], frames[1]], {}) == content_key(list(frames), {})


INDICES = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3)
BLUE, RED = [0, 0, 255] * 3, [255, 0, 0] * 3


def indexed(palette: list[int], **info) -> Image.Image:
    """A picture of numbers, which mean what a palette says."""
    image = Image.frombytes("P", INDICES.size, INDICES.tobytes())
    image.putpalette(palette)
    image.info.update(info)
    return image


def turned(orientation: int) -> Image.Image:
    """A picture that is shown turned."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    INDICES.convert("RGB").save(file, "PNG", exif=exif)
    return Image.open(file)


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def looks() -> dict[str, Image.Image]:
    """Pictures whose values are equal and that are not shown alike, and some that are."""
    clear = np.dstack([np.stack([np.asarray(INDICES)] * 3, axis=2), np.asarray(INDICES) * 100])
    return {
        "grey": INDICES,
        "colours": INDICES.convert("RGB"),
        "blue": indexed(BLUE),
        "red": indexed(RED),
        "rainbow": indexed([255, 0, 0, 0, 255, 0, 0, 0, 255]),
        "transparent": indexed(RED, transparency=1),
        "of two greys": indexed(RED, transparency=bytes([255, 9, 90])),
        "keyed grey": file_as_image(INDICES, transparency=2),
        "alpha": Image.fromarray(clear),
        "premultiplied": Image.frombytes("RGBa", INDICES.size, clear.tobytes()),
        "integers": INDICES.convert("I"),
        "floats": INDICES.convert("F"),
        "black and white": INDICES.convert("1"),
        "ink": Image.frombytes("CMYK", INDICES.size, clear.tobytes()),
        "luma": Image.merge("YCbCr", [INDICES] * 3),
        "16 bits": Image.fromarray(np.asarray(INDICES).astype(np.uint16)),
        "wide": INDICES.convert("RGB").transpose(Image.Transpose.TRANSPOSE),
        "reshaped": INDICES.convert("RGB").resize((6, 2)),
        **{f"turned by {number}": turned(number) for number in range(1, 9)},
    }


def file_as_image(image: Image.Image, **options) -> Image.Image:
    return Image.open(io.BytesIO(file_of(image, **options)))


def ways(name: str, image: Image.Image) -> dict:
    """One picture in every form."""
    found = {f"{name}, Pillow": image, f"{name}, a list": [image], f"{name}, twice": [image, image]}
    if not name.startswith("turned") and image.mode not in ("RGBa", "CMYK", "YCbCr", "F", "1"):
        found[f"{name}, array"] = np.asarray(image if image.mode != "P" else image.convert("RGB"))
        found[f"{name}, arrays"] = [found[f"{name}, array"]] * 2
    if image.mode not in ("RGBa", "F", "YCbCr"):
        kind = "TIFF" if image.mode == "CMYK" else "PNG"
        data = file_of(image, kind, exif=image.getexif()) if name.startswith("turned") else file_of(image, kind)
        found |= {f"{name}, file": data, f"{name}, files": [data, data], f"{name}, file object": io.BytesIO(data)}
    return found


def seen(source) -> list:
    """All that is read of a source, with transparency and with what lies beneath."""
    videos = [open_video(source, Sampling(kind="all"), drops_transparency=drops) for drops in (False, True)]
    return [(video.frames.shape, video.frames.tobytes(), video.fps, video.duration_s) for video in videos]


def test_s26_what_is_shown_otherwise_never_shares_a_key():
    pool = {way: source for name, image in looks().items() for way, source in ways(name, image).items()}
    # An array of two axes is sound or a picture by who asks, and has no key in common with either.
    keys: dict[str, list] = {}
    for way, source in pool.items():
        shown = seen(source) if not isinstance(source, np.ndarray) or source.ndim > 2 else ["samples", seen(source)]
        first, known = keys.setdefault(content_key(source, {}), [way, shown])
        assert known == shown, f"{first} and {way} share a key"
    assert len(keys) > 60
    equal = [("colours", "turned by 1")]
    for one, other in equal:
        assert content_key(looks()[one], {}) == content_key(looks()[other], {})
        assert content_key(looks()[one], {}) == content_key(np.asarray(looks()[one]), {})


def test_s26_animations_that_differ_in_time_alone_differ():
    images = [Image.new("RGB", (8, 6), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        keys = {
            content_key(file_of(images[0], kind, save_all=True, append_images=images[1:], duration=duration), {})
            for duration in (50, [50, 50, 60], [60, 50, 50])
        }
        assert len(keys) == 3, kind


def test_s26_lists_do_not_run_together():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    file = file_of(Image.fromarray(picture))
    other = file_of(Image.fromarray(picture[:2]))
    pool = [
        *([picture], [picture[:2], picture[2:]], [picture, picture], picture, np.stack([picture])[None][0][[0, 0, 0]]),
        *([file], [other], [file, other], [other, file], [file, file], [picture, file], [file, picture], file, other),
        *([picture.reshape(2, 8, 3)], [picture.reshape(8, 2, 3)], [picture[:1]] * 4, [picture[:, :1]] * 4),
    ]
    assert len({content_key(source, {}) for source in pool}) == len(pool)
    assert content_key([picture], {}) == content_key(picture[None], {})


def test_s26_no_content_has_the_key_of_a_name_or_of_another_kind(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    picture = np.zeros((4, 4, 3), np.uint8)
    pool = ["x", b"x", "x[]", picture, picture.tobytes(), [picture], (8000, np.zeros(48, np.float32)), np.zeros(48)]
    pool += [np.zeros(48, np.float32), np.zeros(48, np.int32), np.zeros((1, 48)), np.zeros((48, 1)), "x[('a', 1)]"]
    keys = [content_key(source, {}) for source in pool] + [content_key("x", {"a": 1}), content_key(b"x", {"a": 1})]
    assert len(set(keys)) == len(keys)


def framed(folder, *pictures: bytes):
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(data)
    return folder


def replaced(path, data: bytes) -> None:
    """Another content of equal size, and the times of the one before."""
    status = path.stat()
    assert status.st_size == len(data)
    time.sleep(0.02)  # of a large folder nothing but the time of change tells, which ticks every few milliseconds
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("most_bytes", [1 << 26, 0], ids=["small", "large"])
def test_s26_a_folder_whose_file_was_replaced_has_another_key(tmp_path, monkeypatch, most_bytes):
    monkeypatch.setattr(digests, "_SMALL_FOLDER", most_bytes)
    one, other = (file_of(Image.new("RGB", (4, 4), color), "BMP") for color in ("red", "blue"))
    folder = framed(tmp_path / "frames", one, one)
    source, keys = resolve(folder), [content_key(folder, {})]
    assert content_key(folder, {}) == content_key(source, {}) == keys[0]

    replaced(folder / "1.png", other)
    keys.append(content_key(folder, {}))
    assert content_key(source, {}) == keys[1]  # though that was asked before
    (tmp_path / "new").write_bytes(one)
    os.utime(tmp_path / "new", ns=((folder / "0.png").stat().st_mtime_ns,) * 2)
    (tmp_path / "new").replace(folder / "0.png")
    keys.append(content_key(folder, {}) if most_bytes == 0 else "the same picture again")
    (folder / "2.png").write_bytes(one)
    keys.append(content_key(folder, {}))
    (folder / "2.png").rename(folder / "10.png")
    (folder / "0.png").rename(folder / "20.png")
    keys.append(content_key(folder, {}))
    assert len(set(keys)) == 5


def test_s26_a_folder_of_the_same_pictures_has_the_same_key(tmp_path):
    one, other = (file_of(Image.new("RGB", (4, 4), color)) for color in ("red", "blue"))
    first, second = framed(tmp_path / "a", one, other), framed(tmp_path / "b", one, other)
    (second / "notes.txt").write_text("no frame")
    assert content_key(first, {}) == content_key(second, {})
    assert content_key(first, {}) != content_key(framed(tmp_path / "c", other, one), {})
    # What is no file is no reason not to have a key: it need not be among the frames that are wanted.
    key = content_key(second, {})
    os.mkfifo(second / "9.png")
    (second / "99.png").symlink_to(tmp_path / "nothing")
    assert content_key(second, {}) != key


def test_s26_a_file_that_was_replaced_has_another_key(tmp_path):
    path = tmp_path / "a.bmp"
    path.write_bytes(file_of(Image.new("RGB", (4, 4), "red"), "BMP"))
    source = pickle.loads(pickle.dumps(resolve(path)))
    key = content_key(source, {})
    replaced(path, file_of(Image.new("RGB", (4, 4), "blue"), "BMP"))

    assert content_key(source, {}) != key
    assert content_key(source, {}) == content_key(path, {})


def test_s26_no_cross_talk_between_a_hundred_readers(tmp_path):
    def read(number: int) -> tuple[str, int]:
        image = Image.new("RGB", (8, 8), (number, 0, 0))
        source: object = [image, file_of(image), np.asarray(image), [image]][number % 4]
        return content_key(source, {}), int(open_image(source).frames[0, 4, 4, 0])  # type: ignore[arg-type]

    with ThreadPoolExecutor(16) as pool:
        read_by_each = list(pool.map(read, range(100)))
    assert [value for _, value in read_by_each] == list(range(100))
    assert len({key for key, _ in read_by_each}) == 100


def test_a_text_that_names_no_file_is_no_fault():
    texts = ("x" * 10_000, "nul\0", "data:video/mp4", "absent.mp4", "https://example.org/a.mp4")
    assert len({content_key(text, {}) for text in texts}) == len(texts)
    assert content_key("data:video/mp4;base64,eA==", {}) == content_key(b"x", {})
    with pytest.raises(MediaError, match="gives text"):
        content_key(io.StringIO("x"), {})

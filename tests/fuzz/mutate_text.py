"""JSON, YAML, tables and HTTP requests with values of other types, keys that are gone, doubled, nested or huge."""

import copy
import csv
import io
import json
import re
from random import Random
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 10**6, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308,
    float("inf"), float("-inf"), float("nan"), "", " ", "x", "0", "1", "-1", "1e3", "null", "nan", "true", "\0", "a\0b",
    "\ud800", "\u202e\u2028", "é" * 300, "x" * 70_000, "../../etc/passwd", "/", ".", "..", "/dev/zero",
    "/proc/self/mem",
    "http://127.0.0.1:1/x.mp4", "https://[::1]/a", "http://[bad", "file:///etc/passwd", "file://[", "data:",
    "data:;base64,!",
    "concat:a|b", "\x1b[31mred", "<video>", "<image><image>", "###Human:", "{}", "{question}", "{0}", "%s", "$(id)",
    [], {},
    [None], [[]], [1, "x"], {"": None}, {"kind": None}, {"a": {"a": {"a": 1}}}, [{}], "fp16", "none", "auto",
)  # fmt: skip
_YAML_LINES = (
    "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
    "? [1, 2]\n: 3",
    "? {a: b}\n: c",
    "x: !!python/object/apply:os.system ['true']",
    "x: !!binary '!'",
    "x: 2026-11-30",
    "x: 0o17",
    "x: 1:30:00",
    "<<: {x: 1}",
    "x: !!set {a}",
    "*missing",
    "\tx: 1",
    "--- \nx: 1",
    "x: &x [*x]",
    "x: " + "[" * 400,
    "x: " + "9" * 5000,
    "1: 2",
    "null: 1",
    "1.5: {a: 1}",
    "x: .inf",
    "!!null x: 1",
)


def change_json(data: bytes, rng: Random) -> bytes:
    """JSON with one to three things changed within it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(value, rng)
    return _dumped(value, rng)


def _dumped(value: Any, rng: Random) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    if rng.random() < 0.05:  # a key written twice
        text = re.sub(r'("\w+"): ', lambda found: f"{found[0]}null, {found[0]}", text, count=1)
    if rng.random() < 0.03:
        text = text.replace("null", rng.choice(("[" * 5000, "9" * 5000, '{"a":' * 3000)), 1)
    return text.encode("utf-8", "surrogatepass")


def change_jsonl(data: bytes, rng: Random) -> bytes:
    """Lines of JSON with some of them changed, or their order, ends and number."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        how = rng.randrange(10)
        if how < 6:
            lines[at] = change_json(lines[at], rng)
        elif how == 6:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        elif how == 7:
            lines.insert(at, rng.choice((lines[at], b"", b" \t", b"null", b"[]", b"\xff\xfe", b"{" * 3000)))
        elif how == 8:
            lines.insert(0, b"\xef\xbb\xbf" + lines.pop(0))
        else:
            lines[at] = rng.choice((lines[at] + b"\r", lines[at].replace(b'"', b"'"), lines[at] + b",", lines[at] * 2))
    return b"\n".join(lines)


def change_yaml(data: bytes, rng: Random) -> bytes:
    """YAML changed as data, or with a line that YAML has a meaning for."""
    if rng.random() < 0.3:
        lines = data.decode("utf-8", "replace").split("\n")
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_YAML_LINES))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    try:
        value = yaml.load(data, Loader=LOADER)
    except (yaml.YAMLError, ValueError):
        return data
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(value, rng)
    try:
        return yaml.dump(value, Dumper=DUMPER, sort_keys=False, allow_unicode=rng.random() < 0.2).encode(
            "utf-8", "surrogatepass"
        )
    except (yaml.YAMLError, ValueError):  # a number of more digits than Python writes
        return data


def change_csv(data: bytes, rng: Random) -> bytes:
    """A table with cells changed, or rows and columns too many or too few."""
    comma = "\t" if b"\t" in data.partition(b"\n")[0] else ","
    rows = list(csv.reader(io.StringIO(data.decode("utf-8", "replace"), newline=""), delimiter=comma))
    for _ in range(rng.choice((1, 2, 4))):
        row = rng.choice(rows) if rows else []
        at = rng.randrange(len(row)) if row else 0
        how = rng.randrange(6)
        if how < 3 and row:
            row[at] = str(rng.choice(ODD))
        elif how == 3:
            row.append("more")
        elif how == 4 and row:
            del row[at]
        elif rows:
            rows.insert(rng.randrange(len(rows)), rng.choice((row, [], [""], ["x"] * 300)))
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=comma).writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def change_request(data: bytes, rng: Random) -> bytes:
    """An HTTP request with another address, header, body or stated length."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    method, path, version = [*first.split(b" "), b"", b"", b""][:3]
    how = rng.randrange(10)
    if how < 6 and body:
        body = change_json(body, rng)
    elif how == 6:
        method = rng.choice((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"X" * 50, b""))
    elif how == 7:
        path = rng.choice(
            (path + b"/..%2f..%2fetc/passwd", path + b"?a=" + b"x" * 5000, path.upper(), b"/" + path, path + b"\xff",
            b"*",
             path.replace(b"/", b"//"), path + b"%00", path + b"?session_hash=a&session_hash=b", path[: len(path) // 2])
        )  # fmt: skip
    elif how == 8:
        headers.append(
            rng.choice(
                (b"Content-Type: text/plain", b"Content-Type: multipart/form-data; boundary=x",
                b"Transfer-Encoding: chunked",
                 b"Cookie: " + b"x" * 9000, b"Range: bytes=0-1,5-2,-9", b"X: \xff\xfe", b"Host: elsewhere.example",
                 b"Origin: http://elsewhere.example", b"Accept-Encoding: gzip;q=x", b"Authorization: Basic !",
                 b"nocolon")
            )
        )  # fmt: skip
    else:
        body = rng.choice(
            (b"", b"null", b"[]", b"{", b"\xff" * 99, b'"' + b"x" * 99_000 + b'"', body * 2, body[: len(body) // 2])
        )
    if body and rng.random() < 0.9:
        headers = [line for line in headers if not line.lower().startswith(b"content-length")]
        headers.append(b"Content-Length: %d" % len(body))
    return b" ".join((method, path, version)) + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body


def _odd(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))  # it may be changed itself afterwards


def _changed(value: Any, rng: Random) -> Any:
    """Plain data with one place in it changed."""
    places = _places(value, ())
    place = rng.choice(places)
    if not place:
        return rng.choice((value, [value], {"x": value}, _odd(rng)))
    *parents, last = place
    parent = value
    for key in parents:
        parent = parent[key]
    how = rng.randrange(12)
    if how < 6:
        parent[last] = _odd(rng)
    elif how == 6:
        del parent[last]
    elif how == 7:
        parent[last] = [parent[last]] * rng.choice((1, 2, 500))
    elif how == 8 and isinstance(parent, dict):
        parent[rng.choice(("x", "", "kind", f"{last} ", str(last).upper(), "\0", "é"))] = parent.pop(last)
    elif how == 9 and isinstance(parent, dict):
        parent[rng.choice(("x", "kind", "id", "__class__"))] = _odd(rng)
    elif how == 10:
        parent[last] = _taken(value, rng.choice(places))
    else:
        parent[last] = _near(parent[last], rng)
    return value


def _near(value: Any, rng: Random) -> Any:
    """A value of another type, or of the same, that means much the same."""
    if isinstance(value, bool) or value is None:
        return rng.choice((str(value), int(bool(value)), [value]))
    if isinstance(value, int | float):
        return rng.choice(
            (str(value), -value, value * 1000, value // 2 if value == value else 0.5, [value], value == 1)
        )
    if isinstance(value, str):
        return rng.choice(
            (
                value.encode("utf-8", "surrogatepass").hex(),
                value + "\0",
                value * 50,
                value[: len(value) // 2],
                value.swapcase(),
                [value],
            )
        )
    return rng.choice((str(value)[:500], len(value), {"a": value}, [value, value]))


def _places(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    found = [path]
    if len(path) < 12:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            found += _places(item, (*path, key))
    return found


def _taken(value: Any, place: tuple[Any, ...]) -> Any:
    """A copy of what stands at a place."""
    for key in place:
        value = value[key]
    return copy.deepcopy(value)

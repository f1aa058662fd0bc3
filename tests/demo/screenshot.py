"""`python -m tests.demo.screenshot` starts `demo.py`, asks about an example, and draws docs/images/demo.png."""

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.demo.browser import CHROMIUM, ROOT, Tab, chromium, python, serving

MAX_BYTES = 300_000


def take(path: Path, *, width: int, height: int, dark: bool, example: int, options: list[str]) -> None:
    """Draws the page after two questions about an example clip."""
    with tempfile.TemporaryDirectory() as temp:
        command = python("demo.py", "--port", "PORT", *options)
        with serving(command, Path(temp)) as server, chromium() as browser:
            tab = Tab(browser, server, width=width, height=height, dark=dark)
            tab.page.click(f".av-card >> nth={example}")
            tab.page.wait_for_selector("#av-file video")
            for number in range(2):
                tab.page.click(f".av-chip >> nth={number}")
                tab.wait_idle(number + 1)
            tab.page.mouse.move(0, 0)
            tab.page.evaluate("document.activeElement.blur()")
            tab.page.wait_for_timeout(700)
            shown = Image.open(io.BytesIO(tab.page.screenshot(full_page=True))).convert("RGB")
            tab.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        shown.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, at most {MAX_BYTES} are wanted; make it smaller")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "demo.png")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--example", type=int, default=0, help="which example clip")
    args, options = parser.parse_known_args()
    if CHROMIUM is None:
        raise SystemExit("no Chromium; install it, for example: apt-get install chromium")
    take(args.out, width=args.width, height=args.height, dark=args.dark, example=args.example, options=options)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

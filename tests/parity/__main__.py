"""`python -m tests.parity CASE_DIR|FOLDER|MANIFEST.json [--json]`: compares our parts with reference cases."""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main(arguments: list[str] | None = None) -> int:
    """Prints the rows; returns 0 only if all of them hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("path", type=Path, nargs="+", help="a case, a folder of cases, or a manifest of key names")
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON list")
    options = parser.parse_args(arguments)

    from tests.parity import runner  # torch is not needed to print the help

    results = [result for path in options.path for result in runner.run(path)]
    if options.json:
        print(json.dumps([row for result in results for row in result.to_plain()], indent=1))
    else:
        _print_table(results)
    return 0 if all(result.ok for result in results) else 1


def _print_table(results: list) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else 160
    console = Console(width=width)
    table = Table(title=None, show_lines=False)
    for column in ("case", "tensor", "max abs error", "tolerance", "holds", "note"):
        table.add_column(column, overflow="fold")
    for result in results:
        for row in result.rows:
            error = "" if row.max_abs_error is None else f"{row.max_abs_error:.2e}"
            holds = Text("yes", style="green") if row.ok else Text("NO", style="bold red")
            cells = (result.case, row.name, error, row.tolerance)
            table.add_row(*map(Text, cells), holds, Text(row.note))
    console.print(table)
    for result in results:
        bad = sum(not row.ok for row in result.rows)
        skipped = sum(row.note.startswith("not covered") for row in result.rows)
        counts = f"{len(result.rows) - bad - skipped} hold, {bad} do not, {skipped} not covered"
        console.print(Text(f"{result.case}: {counts}", style="" if result.ok else "bold red"))


if __name__ == "__main__":
    sys.exit(main())

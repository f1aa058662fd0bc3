"""report.html: one file that needs nothing else, of one run or of several side by side."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from avllm.evaluation.aspects import HIGHEST
from avllm.evaluation.extraction import LETTERS
from avllm.evaluation.metrics import Mean, Paired
from avllm.evaluation.report import Report, scores
from avllm.evaluation.stills import stills

COLOURS = ("#2f6fde", "#d9822b", "#2b9a66", "#8e4ec6", "#c2405f", "#4a6a7a")
SHOWN = 20  # samples of each list
_TELLING = ("audio", "num_frames", "max_new_tokens", "dtype")  # settings that tell runs of one model apart
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def page(reports: Sequence[Report], *, seed: int = 0) -> str:
    """The page of one run or more; samples with their frames are those of the first.

    Args:
        reports: of runs of one benchmark.
        seed: of the samples drawn.
    """
    first = reports[0]
    names = run_names(reports)
    parts = [
        f"<h1>{escape(first.name)}</h1><p>{escape(' · '.join(names))}</p>",
        _cards(reports, names),
        _scores(reports, names),
        _tests(reports, names),
        _judges(reports),
        _confusion(first, names[0] if len(reports) > 1 else ""),
        _absent(first),
        _samples(reports, names, seed),
        _origin(reports, names),
    ]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(first.name)}</title>'
    )
    return f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body><main>{''.join(parts)}</main>"


def run_names(reports: Sequence[Report]) -> list[str]:
    """The models of the runs; of equal ones also what is set differently, or a number."""
    models = [str(report.run.get("model", "?")) for report in reports]
    settings = [{k: v for k, v in report.run.get("benchmark", {}).items() if k in _TELLING} for report in reports]
    names = []
    for model, own in zip(models, settings, strict=True):
        others = [other for name, other in zip(models, settings, strict=True) if name == model]
        telling = [f"{k}={v}" for k, v in own.items() if v is not None and any(other.get(k) != v for other in others)]
        names.append(", ".join([model, *telling]))
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def paired(first: Report, second: Report) -> Paired | None:
    """The paired test on the samples that both have a score for; None if there is none."""
    ours, theirs = (scores(report.answered) for report in (first, second))
    both = [name for name in ours if name in theirs]
    return Paired.of([ours[name] for name in both], [theirs[name] for name in both]) if both else None


def _cards(reports: Sequence[Report], names: Sequence[str]) -> str:
    cards = [
        (f"{_percent(report.overall.mean)}", f"{name}, {_interval(report.overall)}")
        for report, name in zip(reports, names, strict=True)
    ]
    first = reports[0]
    unread = sum(not row["read_as"] for row in first.answered)
    cards += [(str(len(first.answered)), f"answers of {first.num_samples} samples")]
    cards += [(str(len(first.missing)), "media missing"), (str(len(first.errors)), "errors"), (str(unread), "unread")]
    inner = "".join(
        f"<div class=card><b>{escape(big)}</b><span class=dim>{escape(small)}</span></div>" for big, small in cards
    )
    return f"<div class=cards>{inner}</div>"


def _scores(reports: Sequence[Report], names: Sequence[str]) -> str:
    splits: list[tuple[str, list[Mapping[str, Mean]]]] = [("category", [report.categories for report in reports])]
    for group in reports[0].groups:
        splits.append((group, [report.groups.get(group, {}) for report in reports]))
    legend = "".join(
        f'<span class=run><span class=key style="background:{_colour(index)}"></span>{escape(name)}</span>'
        for index, name in enumerate(names)
    )
    rows = [_row("all", [report.overall for report in reports], "all")]
    for title, means in splits:
        keys = sorted({key for mean in means for key in mean})
        if keys:
            rows.append(f"<tr><th>{escape(title)}<th><th class=n>score, 95 % interval<th class=n>n</tr>")
        rows += [_row(key, [mean.get(key, Mean.of([])) for mean in means]) for key in keys]
    for part, some in reports[0].measures.items():
        rows.append(f"<tr><th>{escape(part)}<th><th class=n>figure, 95 % interval<th class=n>n</tr>")
        others = [report.measures.get(part, {}) for report in reports]
        rows += [_row(name, [other.get(name, Mean.of([])) for other in others]) for name in some]
    orders = [report.orders.named() if report.orders else {} for report in reports]
    if any(orders):
        rows.append("<tr><th>options in several orders<th><th class=n>share, 95 % interval<th class=n>n</tr>")
        rows += [_row(key, [mean.get(key, Mean.of([])) for mean in orders]) for key in max(orders, key=len)]
    return f"<h2>Scores</h2><p>{legend}</p><div class=box><table>{''.join(rows)}</table></div>"


def _row(title: str, means: Sequence[Mean], kind: str = "") -> str:
    bars = "".join(_bar(mean, _colour(index)) for index, mean in enumerate(means))
    texts = "<br>".join(f"{_percent(mean.mean)} <span class=dim>{_interval(mean)}</span>" for mean in means)
    counts = "<br>".join(str(mean.n) for mean in means)
    return f'<tr class="{kind}"><td>{escape(title)}<td class=bars>{bars}<td class=n>{texts}<td class=n>{counts}</tr>'


def _bar(mean: Mean, colour: str) -> str:
    if mean.mean is None or mean.low is None or mean.high is None:
        return "<div class=bar></div>"
    mid, low, high = (100 * min(value, 1.0) for value in (mean.mean, mean.low, mean.high))  # CIDEr-D goes up to 10
    whisker = f'<u style="left:{low:.2f}%;width:{high - low:.2f}%"></u>'
    return f'<div class=bar><i style="width:{mid:.2f}%;background:{colour}"></i>{whisker}</div>'


def _tests(reports: Sequence[Report], names: Sequence[str]) -> str:
    rows = []
    for report, name in zip(reports[1:], names[1:], strict=True):
        found = paired(reports[0], report)
        if found is not None:
            gap = f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
            cells = (f"{names[0]} minus {name}", gap, f"{found.p:.4f}", found.only_first, found.only_second, found.n)
            rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in cells) + "</tr>")
    if not rows:
        return ""
    titles = ("runs", "difference, 95 % interval", "p", "first better", "second better", "samples of both")
    head = "".join(f"<th>{title}" for title in titles)
    note = "<p>Sign-flip test on the samples that both answered.</p>"
    return f"<h2>Paired test</h2><div class=box><table><tr>{head}</tr>{''.join(rows)}</table></div>{note}"


def _judges(reports: Sequence[Report]) -> str:
    keys = list(dict.fromkeys((m, a) for report in reports for m, found in report.judgements.items() for a in found))
    if not keys:
        return ""
    none, rows, notes = Mean.of([]), [], []
    for model, aspect in keys:
        found = [report.judgements.get(model, {}).get(aspect) for report in reports]
        if any(one and one.accuracy for one in found):
            rows.append(_row(f"{model}: right", [one.accuracy or none if one else none for one in found]))
        rows.append(_row(f"{model}: {aspect}, of {HIGHEST}", [one.score if one else none for one in found]))
        if found[0] and found[0].agreement is not None:
            notes.append(f"{model} and the rule agree on {_percent(found[0].agreement)} of the answers.")
    for name in reports[0].offline if notes else ():
        rows.append(_row(f"offline: {name}", [report.offline.get(name, none) for report in reports]))
    note = escape(" ".join(notes))
    return f"<h2>Judges of open answers</h2><div class=box><table>{''.join(rows)}</table></div><p>{note}</p>"


def _confusion(report: Report, name: str) -> str:
    of = f" of {escape(name)}" if name else ""
    choices = [row for row in report.answered if row.get("options") and row.get("truth") is not None]
    if not choices:
        return _mistakes(report, of)
    letters = LETTERS[: max(len(row["options"]) for row in choices)]
    counts = Counter((LETTERS[row["truth"]], row["read_as"]) for row in choices)
    most = max(counts.values())
    rows = []
    for truth in letters:
        cells = "".join(_heat(counts[truth, said], most, truth == said) for said in [*letters, ""])
        rows.append(f"<tr><th>{truth} is right{cells}</tr>")
    head = "".join(f"<th class=c>{letter}" for letter in letters) + "<th class=c>none"
    return (
        f"<h2>Options chosen{of}</h2><div class=box><table class=grid><tr><th>{head}</tr>{''.join(rows)}</table></div>"
    )


def _heat(count: int, most: int, is_right: bool) -> str:
    colour = "43,154,102" if is_right else "194,64,95"
    return f'<td style="background:rgba({colour},{0.6 * count / most:.2f})">{count or ""}'


def _mistakes(report: Report, of: str) -> str:
    wrong = [row for row in report.answered if row["score"] is not None and row["score"] < 0.5 and row.get("accepted")]
    counts = Counter((row["accepted"][0], row["answer"]) for row in wrong).most_common(12)
    if not counts:
        return ""
    rows = "".join(f"<tr><td>{escape(t)}<td>{escape(_short(a))}<td class=n>{n}</tr>" for (t, a), n in counts)
    return (
        f"<h2>Commonest mistakes{of}</h2><div class=box><table><tr><th>right<th>answered<th></tr>{rows}</table></div>"
    )


def _absent(report: Report) -> str:
    lines = [*report.missing, *(f"{row['id']}: {row['error']}" for row in report.errors)]
    if not lines:
        return ""
    listed = escape("\n".join(lines[:500]))
    details = f"<details><summary>{len(lines)} media or samples</summary><pre>{listed}</pre></details>"
    return f"<h2>Without an answer</h2>{details}"


def _samples(reports: Sequence[Report], names: Sequence[str], seed: int) -> str:
    report, rng = reports[0], random.Random(seed)
    scored = [row for row in report.answered if row["score"] is not None]
    rng.shuffle(scored)
    worst = [row for row in sorted(scored, key=lambda row: row["score"]) if row["score"] < 1][:SHOWN]
    drawn = rng.sample(list(report.answered), min(SHOWN, len(report.answered)))
    texts = [("Worst samples", worst), ("Random samples", drawn)]
    said: list[Mapping[str, Mapping[str, Any]]] = [{row["id"]: row for row in one.answered} for one in reports[1:]]
    parts = []
    for title, rows in texts:
        others = [[(name, by_id.get(row["id"])) for name, by_id in zip(names[1:], said, strict=True)] for row in rows]
        cards = "".join(_sample(row, other) for row, other in zip(rows, others, strict=True))
        parts.append(f"<h2>{title}</h2><div class=samples>{cards}</div>" if rows else "")
    return "".join(parts)


def _sample(row: Mapping[str, Any], others: Sequence[tuple[str, Mapping[str, Any] | None]]) -> str:
    images = "".join(f'<img alt="" src="{source}">' for source in stills(row))
    right = " right" if row["score"] is not None and row["score"] >= 0.5 else ""
    truth = row.get("accepted", [""])[0] if row.get("truth") is None else f"({LETTERS[row['truth']]})"
    options = "".join(
        f"<div>({letter}) {escape(text)}</div>" for letter, text in zip(LETTERS, row.get("options", ()), strict=False)
    )
    score = "-" if row["score"] is None else f"{row['score']:.2g}"
    answered = f"<div>answered: <b>{escape(_short(row['answer']) or '(nothing)')}</b></div>"
    answered += "".join(
        f"<div>{escape(name)}: {escape(_short(other['answer']) or '(nothing)')}</div>"
        for name, other in others
        if other
    )
    for model, found in row.get("verdicts", {}).items():
        text = ", ".join(f"{aspect} {one.get('score', 'failed')}" for aspect, one in found.items())
        answered += f"<div>{escape(model)}: {escape(text)} of {HIGHEST}</div>"
    frames = ", ".join(f"{time_s:.1f}" for time_s in row.get("frames_s", ()))
    facts = [row["id"], row.get("category", ""), f"score {score}", frames and f"frames at {frames} s"]
    small = escape(" · ".join(fact for fact in facts if fact))
    strip = f"<div class=stills>{images}</div>" if images else ""
    return (
        f'<div class="sample{right}">{strip}<div class=q>{escape(row["question"])}</div>{options}{answered}'
        f"<div>right: {escape(truth or '-')}</div><small>{small}"
        f"</small><details><summary class=dim>prompt</summary><pre>{escape(row['prompt'])}</pre></details></div>"
    )


def _origin(reports: Sequence[Report], names: Sequence[str]) -> str:
    rows = []
    for report, name in zip(reports, names, strict=True):
        versions = ", ".join(f"{k} {v}" for k, v in report.run.get("versions", {}).items())
        rows.append(
            f"<tr><td>{escape(name)}<td>{escape(str(report.run.get('weights', '')))}<td>{escape(versions)}</tr>"
        )
    head = "<tr><th>run<th>digest of the weights<th>versions</tr>"
    return f"<h2>Where the figures come from</h2><div class=box><table>{head}{''.join(rows)}</table></div>"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _interval(mean: Mean) -> str:
    return "" if mean.low is None or mean.high is None else f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}..."

"""Tables of figures as Markdown and as a self-contained HTML page with the worst cases as pictures."""

from __future__ import annotations

import html
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from svad_ray.evaluate.published import Published
from svad_ray.evaluate.rows import Row, Summary, figures_in, summarise

DIGITS = {
    "psnr": 2,
    "ssim": 4,
    "lpips_alex": 4,
    "lpips_vgg": 4,
    "lpips": 3,
    "clip": 4,
    "semantic_cosine": 4,
    "identity": 3,
    "iou": 4,
    "flicker": 5,
    "joints_mm": 1,
}
HEADS = {
    "psnr": "PSNR dB ↑",
    "ssim": "SSIM ↑",
    "lpips_alex": "LPIPS alex ↓",
    "lpips_vgg": "LPIPS vgg ↓",
    "lpips": "LPIPS, network not stated ↓",
    "clip": "CLIP ↑",
    "semantic_cosine": "semantic cosine ↑",
    "identity": "face distance ↓",
    "iou": "silhouette IoU ↑",
    "flicker": "flicker ↓",
    "joints_mm": "joints mm ↓",
}


@dataclass(frozen=True)
class Grid:
    """A table of text with a caption; the first column names the row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Page:
    """One evaluation for people.

    Attributes:
        title: Of the page. grids: Its tables. notes: Sentences below. command: What made it.
        pictures: Caption -> PNG bytes of the worst cases.
    """

    title: str
    grids: Sequence[Grid]
    notes: Sequence[str] = ()
    command: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def cell(figure: str, value: float) -> str:
    """A figure with its digits."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{DIGITS.get(figure, 3)}f}"


def by_view(rows: Sequence[Row], *, seed: int = 0) -> Grid:
    """Mean, median, count and interval of every figure, over all rows and for each view."""
    figures = figures_in(rows)
    views = list(dict.fromkeys(str(row["view"]) for row in rows))
    groups = [("all", list(rows))] + ([(view, [row for row in rows if str(row["view"]) == view]) for view in views] if 1 < len(views) <= 12 else [])
    body = []
    for name, group in groups:
        told = {figure: summarise(group, figure, seed=seed) for figure in figures}
        count = max((s.count for s in told.values()), default=0)
        body.append((f"{name} (n = {count})", *(_mean(figure, s, count) for figure, s in told.items())))
        body.append(("median", *(cell(figure, s.median) for figure, s in told.items())))
        body.append(("95 % interval", *(_interval(figure, s) for figure, s in told.items())))
    return Grid(("mean of", *(HEADS[figure] for figure in figures)), tuple(body))


def by_subject(rows: Sequence[Row]) -> Grid:
    """The mean over views of every subject."""
    figures = figures_in(rows)
    names = sorted({str(row["subject"]) for row in rows}, key=_natural)
    body = []
    for name in names:
        own = [row for row in rows if str(row["subject"]) == name]
        body.append((name, *(cell(figure, summarise(own, figure).mean) for figure in figures)))
    return Grid(("subject", *(HEADS[figure] for figure in figures)), tuple(body))


def beside(rows: Sequence[Row], others: Sequence[Published], ours: str, *, seed: int = 0) -> Grid | None:
    """Our means above the published ones; None without any."""
    if not others:
        return None
    figures = tuple(dict.fromkeys((*figures_in(rows), *(name for other in others for name in other.figures if name in HEADS))))
    mine = (ours, *(cell(figure, summarise(rows, figure, seed=seed).mean) for figure in figures), "this table")
    theirs = tuple((o.method, *(cell(figure, o.figures.get(figure, float("nan"))) for figure in figures), o.source) for o in others)
    return Grid(("method", *(HEADS[figure] for figure in figures), "source"), (mine, *theirs), "Beside published figures")


def _mean(figure: str, told: Summary, count: int) -> str:
    few = f" (n = {told.count})" if told.count < count else ""
    return cell(figure, told.mean) + few


def _interval(figure: str, told: Summary) -> str:
    return "–" if math.isnan(told.low) else f"{cell(figure, told.low)} … {cell(figure, told.high)}"


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts person2 before person10."""
    parts, digits = [], ""
    for character in text + "\0":
        if character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts


def markdown(page: Page, *, level: int = 1) -> str:
    """The page as Markdown, without its pictures."""
    lines = [f"{'#' * level} {page.title}", ""]
    for grid in page.grids:
        if grid.caption:
            lines += [f"**{grid.caption}**", ""]
        lines += ["| " + " | ".join(_escaped(head) for head in grid.heads) + " |", "|" + "---|" * len(grid.heads)]
        lines += ["| " + " | ".join(_escaped(text) for text in row) + " |" for row in grid.rows]
        lines.append("")
    lines += [f"- {note}" for note in page.notes] + ([""] if page.notes else [])
    if page.command:
        lines += ["```", page.command, "```", ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 78rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap } th { border-bottom: 2px solid #999 }
th:first-child, td:first-child, td:last-child.words { text-align: left } caption { text-align: left; font-weight: 600; padding: .3rem 0 }
figure { margin: 1.5rem 0 } figure img { max-width: 100%; border: 1px solid #ddd } pre { background: #f4f4f4; padding: .8rem; overflow-x: auto }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } pre { background: #262626 } th, td { border-color: #444 } }
"""


def html_page(page: Page) -> str:
    """The page as HTML with its pictures inside."""
    title = html.escape(page.title)
    out = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">', '<meta name="viewport" content="width=device-width, initial-scale=1">']
    out += [f"<title>{title}</title><style>{_STYLE}</style></head><body>", f"<h1>{title}</h1>"]
    for grid in page.grids:
        out.append("<table>" + (f"<caption>{html.escape(grid.caption)}</caption>" if grid.caption else ""))
        out.append("<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in grid.heads) + "</tr>")
        words = ' class="words"' if grid.heads[-1] == "source" else ""
        for row in grid.rows:
            cells = [f"<td>{html.escape(text)}</td>" for text in row[:-1]] + [f"<td{words}>{html.escape(row[-1])}</td>"]
            out.append("<tr>" + "".join(cells) + "</tr>")
        out.append("</table>")
    out += ["<ul>", *(f"<li>{html.escape(note)}</li>" for note in page.notes), "</ul>"] if page.notes else []
    out += [f"<pre>{html.escape(page.command)}</pre>"] if page.command else []
    for caption, png in page.pictures.items():
        source = "data:image/png;base64," + b64encode(png).decode("ascii")
        out.append(f'<figure><img src="{source}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}</figcaption></figure>')
    return "\n".join([*out, "</body></html>", ""])

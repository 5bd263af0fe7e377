"""Draws docs/figures/round.svg, the picture of one round: `python docs/figures/round.py`.

The picture has a background of its own in light and dark, so it is readable on any page.
"""

from pathlib import Path
from xml.sax.saxutils import escape

FILE = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 860, 428
STYLE = """
  .page { fill: #ffffff; } .site { fill: #f2f6fb; stroke: #5b7aa5; }
  .box { fill: #ffffff; stroke: #5b7aa5; } .guard { fill: #fff4e0; stroke: #b7791f; }
  .server { fill: #eef7ee; stroke: #3f8f4f; }
  .text { fill: #1c2733; } .soft { fill: #4a5968; }
  .line { stroke: #33475b; } .tip { fill: #33475b; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #12171d; } .site { fill: #1a2430; stroke: #7f9fcb; }
    .box { fill: #12171d; stroke: #7f9fcb; } .guard { fill: #2e2413; stroke: #e0a84a; }
    .server { fill: #15271a; stroke: #6cc07d; }
    .text { fill: #e8edf2; } .soft { fill: #b3bfcb; } .line { stroke: #c3ced9; }
    .tip { fill: #c3ced9; }
  }
  text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
  .title { font-weight: 600; } .small { font-size: 12.5px; }
"""


def rectangle(kind: str, x: int, y: int, width: int, height: int) -> str:
    """Return a rounded rectangle of the colours of `kind`."""
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>'


def words(x: int, y: int, *lines: str, kind: str = "text", middle: bool = False) -> str:
    """Return lines of text, the first with its baseline at (x, y), 18 pixels apart."""
    anchor = ' text-anchor="middle"' if middle else ""
    return "".join(
        f'<text class="{kind}" x="{x}" y="{y + 18 * i}"{anchor}>{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def arrow(path: str) -> str:
    """Return an arrow along an SVG path."""
    return f'<path class="line" d="{path}" fill="none" stroke-width="1.8" marker-end="url(#tip)"/>'


def hospital() -> list[str]:
    """Return the hospital that is drawn in full, with the steps of its guard."""
    return [
        rectangle("site", 20, 20, 520, 286),
        words(36, 46, "Hospital north", kind="text title"),
        rectangle("box", 36, 98, 116, 108),
        words(94, 128, "Images,", "labels", middle=True),
        words(94, 178, "never leave", kind="soft small", middle=True),
        arrow("M152 152 H182"),
        rectangle("guard", 186, 62, 336, 228),
        words(202, 86, "Guard", kind="text title"),
        words(202, 108, "Before the first round:", kind="soft small"),
        words(
            202,
            127,
            "1  policy.yaml: is this run allowed?",
            "2  ledger: reserve epsilon for all rounds",
        ),
        words(202, 169, "In every round:", kind="soft small"),
        words(
            202,
            188,
            "3  draw images at random (Poisson)",
            "4  clip each image's gradient, add noise",
            "5  send the shared weights",
        ),
        words(202, 254, "The site's heads stay here. The ledger", kind="soft small"),
        words(202, 272, "outlives rounds, runs and restarts.", kind="soft small"),
    ]


def others() -> list[str]:
    """Return the other hospitals, which do the same."""
    return [
        rectangle("site", 20, 322, 252, 52),
        words(146, 353, "Hospital south: the same", middle=True),
        rectangle("site", 288, 322, 252, 52),
        words(414, 353, "Hospital west: the same", middle=True),
    ]


def server() -> list[str]:
    """Return the server and what passes between it and the hospitals."""
    return [
        rectangle("server", 668, 62, 172, 228),
        words(754, 92, "Server", kind="text title", middle=True),
        words(754, 122, "averages the", "noisy weights,", "keeps a checkpoint", middle=True),
        words(754, 196, "report.json:", "each site's epsilon,", "all rounds counted", middle=True),
        words(754, 268, "sees no image", kind="soft small", middle=True),
        arrow("M522 130 H662"),
        words(602, 118, "noisy weights", kind="text small", middle=True),
        arrow("M668 226 H528"),
        words(604, 246, "averaged weights", kind="text small", middle=True),
        arrow("M540 348 H722 V296"),
        arrow("M786 290 V364 H546"),
    ]


def picture() -> str:
    """Return the whole picture as SVG."""
    tip = (
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="tip" d="M0 0 L10 5 L0 10 z"/></marker></defs>'
    )
    note = words(
        20,
        404,
        "Rounds repeat until the schedule ends. A run that would overspend is refused before any "
        "image is read.",
        kind="soft small",
    )
    parts = [tip, rectangle("page", 0, 0, WIDTH, HEIGHT), *hospital(), *others(), *server(), note]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        "<title>One round: a hospital's guard trains on its images under a budget, adds noise and "
        "sends shared weights; the server averages them.</title>"
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(picture())

"""The style of all HTML pages, and plots inside them as SVG.

The style is a string, because an app bundle holds only sources. Matplotlib is loaded when a plot is
drawn.
"""

import html
import io
import re
from typing import Any

COLOURS = ("#0b5fa5", "#c2410c", "#0f766e", "#a21caf", "#8a6100", "#4f46a5", "#9f1239", "#475569")
INK, SOFT, LINE = "#0f172a", "#475569", "#e2e8f0"
PLOTS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.labelspacing": 0.4,
    "lines.linewidth": 1.6,
}
"""Settings of matplotlib for all plots."""

STYLE = """
:root { --ink: #0f172a; --soft: #475569; --line: #d5dce6; --accent: #0b5fa5; --earlier: #64748b;
        --good: #166534; --bad: #9a3412; --wash: #f3f6fa; --desk: #e9eef4; --paper: #fff;
        --noted: #eef5fc; --warned: #fff4ec; --empty: #e2e8f0; color-scheme: light dark; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--desk); color: var(--ink);
       font: 15px/1.55 "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { max-width: 1080px; margin: 24px auto; background: var(--paper); padding: 40px 48px 48px;
       border: 1px solid var(--line); }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; line-height: 1.3; margin: 40px 0 12px; padding-top: 16px;
     border-top: 2px solid var(--ink); }
h3 { font-size: 15px; margin: 22px 0 6px; overflow-wrap: anywhere; }
sup { font-size: 75%; line-height: 0; }
p, li { max-width: 96ch; margin: 10px 0; overflow-wrap: anywhere; } li { margin: 3px 0; }
.soft { color: var(--soft); } .small { font-size: 13.5px; max-width: none; }
.lead { font-size: 16.5px; }
.note, .warn { padding: 12px 18px; margin: 16px 0; border-left: 5px solid; max-width: none; }
.note { border-color: var(--accent); background: var(--noted); }
.warn { border-color: var(--bad); background: var(--warned); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 1px;
         background: var(--line); border: 1px solid var(--line); margin: 20px 0; }
.facts div { background: var(--wash); padding: 12px 16px; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 2px 0 0; font-size: 19px; font-weight: 600; line-height: 1.3; }
.facts dd small { display: block; font-size: 13px; font-weight: 400; color: var(--soft); }
table { border-collapse: collapse; width: 100%; margin: 12px 0 8px; font-size: 14px; }
th, td { text-align: left; padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line);
         vertical-align: top; overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: 13px; line-height: 1.35;
           vertical-align: bottom; border-bottom: 1.5px solid var(--soft); }
tbody th { font-weight: 600; }
th span, td span.soft { display: block; font-weight: 400; font-size: 13px; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th { overflow-wrap: normal; } thead th.n { white-space: normal; }
td.phase { min-width: 8em; } td.narrow { min-width: 7em; } th.gauge, td.gauge { padding-left: 12px; } .who { min-width: 11em; max-width: 18em; }
td.item { width: 32%; } td.stated { white-space: pre-line; } td.yesno { width: 9em; }
tr.spare td { background: var(--wash); } tr.open td { background: var(--warned); }
tfoot td, tfoot th { border-top: 1.5px solid var(--ink); border-bottom: 0; font-weight: 600; }
.bar { display: flex; min-width: 150px; height: 14px; margin: 3px 0; background: var(--empty);
       border: 1px solid #94a3b8; }
.bar i { height: 100%; } .run { background: var(--accent); } .earlier { background: var(--earlier); }
.key { display: inline-block; width: 11px; height: 11px; border: 1px solid #94a3b8;
       margin: 0 4px 0 12px; } .key.first { margin-left: 0; } .key.left { background: var(--empty); }
.yes { color: var(--good); font-weight: 600; } .no { color: var(--bad); font-weight: 600; }
.tag { font-size: 12px; font-weight: 600; color: var(--bad); border: 1px solid var(--bad);
       border-radius: 3px; padding: 1px 7px; margin-left: 8px; white-space: nowrap;
       vertical-align: 2px; }
code { font: 13px/1.45 Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace; }
figure { margin: 16px 0 4px; } figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans",
                  sans-serif !important; }
figcaption { color: var(--soft); font-size: 13.5px; max-width: 106ch; margin-top: 8px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 8px 32px; }
.pictures img { display: block; max-width: 100%; height: auto; }
td span.names { font-size: 12px; }
/* Plots keep their light paper: their colours were chosen for it. */
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf2; --soft: #a9b6c8; --line: #334155; --accent: #6cb0ea; --earlier: #8494ab;
          --good: #7ddba3; --bad: #ffb086; --wash: #1b2534; --desk: #0b111b; --paper: #131b28;
          --noted: #16283c; --warned: #33210f; --empty: #27344a; }
  figure svg { background: #fff; padding: 8px; } .pictures img { background: #fff; } }
@media (max-width: 800px) { main { padding: 24px 18px; margin: 0; } table { font-size: 13px; } }
/* On a phone, tables and plots keep a size that can be read, and are moved by themselves. */
@media screen and (max-width: 700px) { table { display: block; overflow-x: auto; }
  figure { overflow-x: auto; } figure svg { min-width: 640px; } figcaption { min-width: 0; } }
@media (max-width: 800px), print { .who { min-width: 7em; } .bar { min-width: 90px; }
                                   th, td { padding-right: 8px; } }
@page { size: A4; margin: 14mm 14mm 18mm; }
@page { @bottom-right { content: counter(page) " / " counter(pages); font: 9pt Arial, sans-serif; } }
@media print {
  body { background: none; font-size: 10.5pt; print-color-adjust: exact;
         -webkit-print-color-adjust: exact; }
  main { border: 0; margin: 0; padding: 0; max-width: none; }
  h2, h3 { break-after: avoid; } tr, figure, .note, .warn, .facts { break-inside: avoid; }
  figure svg { max-height: 75mm; } h2 { margin-top: 24px; }
  thead { display: table-header-group; } table { font-size: 9.5pt; }
}
"""


def inline(figure: Any, name: str, label: str) -> str:
    """Return a figure as SVG for a page; the same figure gives the same bytes.

    Args:
        figure: A matplotlib figure.
        name: Name of the plot, unique on its page; prefixes the ids inside.
        label: Description for readers who cannot see it.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # else ids are random
        figure.savefig(
            buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = buffer.getvalue()
    # Without the XML declaration, which has no place inside HTML.
    text = text[text.index("<svg") :]
    # Ids of several plots on a page would clash.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)

"""axe-core in headless Chromium. Neither is a dependency: `make browser` fetches axe-core."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

AXE = Path(__file__).parents[2] / "build" / "axe" / "package" / "axe.min.js"
CHROMIUM = os.environ.get("CHROMIUM") or next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (found := shutil.which(name))), None,
)  # fmt: skip
WIDTHS = (390, 1280)
"""Phone and desk, in pixels."""

PROBE = """<script>%s</script><script>
axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const said = found.violations.map(v => v.id + ": " + v.nodes[0].html.slice(0, 200) + " "
    + v.nodes[0].failureSummary);
  if (document.scrollingElement.scrollWidth > document.documentElement.clientWidth)
    said.push("the page is wider than its window");
  const out = parent.document.createElement("pre");
  out.className = "axe";
  out.textContent = JSON.stringify({width: innerWidth, rules: found.passes.length, said: said,
    dark: matchMedia("(prefers-color-scheme: dark)").matches});
  parent.document.body.appendChild(out);
})</script></body>"""


def missing() -> str:
    """Return why the browser tests cannot run here; empty if they can."""
    if CHROMIUM is None:
        return "no Chromium: install it, or name it in CHROMIUM"
    return "" if AXE.exists() else "no axe-core: `make browser` fetches it and runs these tests"


def violations(page: str, scratch: Path, *, dark: bool) -> dict[int, list[str]]:
    """Return what axe-core finds at each width.

    Args:
        page: HTML of a page.
        scratch: An empty folder.
        dark: True for the dark scheme.
    """
    # The page's own policy forbids every script, and so the one that looks at it.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    probed = bare.replace("</body>", PROBE % AXE.read_text())
    # Chromium's window has a least width; a frame has none.
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(probed)}"></iframe>'
        for width in WIDTHS
    )
    file = scratch / "axe.html"
    file.write_text(f"<!doctype html><body>{frames}</body>")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
               "--virtual-time-budget=60000", "--dump-dom",
               f"--user-data-dir={scratch / 'profile'}",
               f"--blink-settings=preferredColorScheme={0 if dark else 1}"]  # fmt: skip
    out = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=300)
    said = re.findall(r'<pre class="axe">(.*?)</pre>', out.stdout, re.DOTALL)
    found = [json.loads(html.unescape(text)) for text in said]
    assert {one["width"] for one in found} == set(WIDTHS), out.stderr[-1000:]
    for one in found:
        assert one["dark"] == dark
        assert one["rules"] > 10, "axe-core looked at next to nothing"
    return {one["width"]: one["said"] for one in found}

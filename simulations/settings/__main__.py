"""`python -m simulations.settings docs`: writes the reference page and the JSON schemas there."""

import sys
from collections.abc import Sequence
from pathlib import Path

from simulations.settings.page import generated


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and the schemas below a docs folder, and print their paths."""
    (docs,) = sys.argv[1:] if argv is None else argv
    for path, content in generated(Path(docs)).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(path)


if __name__ == "__main__":
    main()

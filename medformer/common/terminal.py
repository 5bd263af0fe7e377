"""Text for a terminal."""


def printable(text: str) -> str:
    """Without control characters: a file's name or a request's words cannot steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

"""Transfer syntaxes that this installation decodes (PS3.5, 8.2 and 10; PS3.6, A), and remedies for
the others.

pydicom is asked whether it has a decoder for a syntax. That a module can be imported is not enough,
because some decode only together (HTJ2K needs pylibjpeg beside pylibjpeg-openjpeg).
"""

INSTALL = "pip install --upgrade 'fedmedformer[dicom]'"
EXPORT = "export it from the archive as Explicit VR Little Endian, which is not compressed"
VIDEO = "export the frames as pictures, or as an uncompressed multi-frame image"
REMOTE = "its pixels lie on a server, not in the file: fetch it again with its pixels"

NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Names of syntaxes of 2024 and later, which pydicom's dictionary may lack."""

NEEDED = {
    "1.2.840.10008.1.2.4.50": "Pillow or python-gdcm",
    "1.2.840.10008.1.2.4.51": "python-gdcm",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "python-gdcm or pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "python-gdcm or pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg and pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg and pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg and pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.5": "pydicom",
}
"""Compressed syntax that the extra `dicom` reads -> the package that decodes it. A test reads a
file of each."""


def refusal(syntax: str) -> str:
    """Return why pixels of a transfer syntax cannot be decoded here, and what to do; "" if they
    can.

    Args:
        syntax: The UID; "" for a file that names none.
    """
    if not syntax:
        return ""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    stored = f"its pixels are stored as {name(syntax)}"
    try:
        known = get_decoder(UID(syntax))
    except NotImplementedError:
        return f"{stored}, which no known package decodes: {_remedy(syntax)}"
    if known.is_available:
        return ""
    return f"{stored}, which needs {NEEDED.get(syntax, 'another package')}: {INSTALL}"


def name(syntax: str) -> str:
    """Return the name of a syntax in PS3.6, with its number.

    Args:
        syntax: The UID.
    """
    from pydicom.uid import UID

    spelt = NEWER.get(syntax) or UID(syntax).name
    return f"{spelt} ({syntax})" if spelt != syntax else f"the unknown transfer syntax {syntax}"


def _remedy(syntax: str) -> str:
    spelt = name(syntax)
    if "JPIP" in spelt:
        return REMOTE
    if any(word in spelt for word in ("MPEG", "HEVC", "SMPTE")):
        return VIDEO
    return EXPORT

"""The mask of a round: words that cancel in the sum over the whole cohort, and only there."""

from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from client.privacy.noise import NoiseSource
from server.protocol.masking import Words

INFO = b"fedmedformer mask\n"
CHUNK = 2**13
"""Number of words at a time: they stay in the processor's cache."""


def mask(
    site: str, cohort: Sequence[str], secrets: Mapping[str, bytes], binding: bytes, count: int
) -> Words:
    """Return the words that a site adds to its numbers.

    Args:
        site: The site.
        cohort: Names of all sites whose answers are added up, this one included.
        secrets: Other site -> the secret that the two share for this run.
        binding: Hash of everything that the round's answer depends on, attempt and cohort included:
            another round, attempt or cohort has other words.
        count: Number of words.
    Returns:
        (count,) words. Over all sites of the cohort they add up to zero.
    Raises:
        ValueError: The cohort names a site twice, lacks this one, or has no other.
        KeyError: There is no secret with a site of the cohort.
    Source: Bonawitz et al. 2017, "Practical secure aggregation", section 4, without recovery; RFC
        5869 for HKDF, RFC 8439 for ChaCha20.
    """
    if len(set(cohort)) < len(cohort) or site not in cohort or len(cohort) < 2:
        raise ValueError(f"a cohort has this site and others, each once; got {list(cohort)}")
    total = np.zeros(count, np.uint64)
    for peer in sorted(cohort):
        if peer == site:
            continue
        # A key serves one round's words of one pair.
        key = HKDFExpand(SHA256(), 32, INFO + binding).derive(secrets[peer])
        stream = NoiseSource(key)
        # The two ends of a pair use the same words, one of them with the other sign.
        add = np.add if site < peer else np.subtract
        for start in range(0, count, CHUNK):
            part = total[start : start + CHUNK]
            add(part, stream.words(len(part)), out=part)
    return total

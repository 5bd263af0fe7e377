"""Words that sites declare for modality and anatomy, in one spelling each. Loads no torch.

Sites that spell a word in two ways have two kinds of image and silently share no concepts.
"""

import re
from collections.abc import Mapping, Set
from difflib import get_close_matches

from medformer.config import UNKNOWN, Domain
from medformer.vocabulary import EVERYTHING

_MORE_MODALITIES = """
angiography cbct colposcopy cytology endoscopy fluoroscopy mammography mri oct-angiography
ophthalmoscopy pet pet-ct photography spect tomosynthesis xray
"""
_MORE_ANATOMIES = """
ankle arm bladder bone cervix duodenum ear elbow esophagus eye face foot gallbladder
hand head heart hip jaw knee leg liver lymph-node mouth muscle neck nose ovary pancreas pelvis
placenta prostate shoulder skull spine spleen stomach teeth testis thigh throat thyroid uterus
vessels whole-body wrist
"""
MODALITIES = frozenset({UNKNOWN, *EVERYTHING.modalities, *_MORE_MODALITIES.split()})
"""Words for kinds of image that need no `new: true`; a model need not have seen them."""
ANATOMIES = frozenset({UNKNOWN, *EVERYTHING.anatomies, *_MORE_ANATOMIES.split()})
"""The same for what is shown."""

_SAME_MODALITIES = {
    "ultrasound": "us usg echo sonography sonogram echography echocardiography",
    "chest-xray": "cxr chestxray chestradiograph chestradiography thoraxxray",
    "xray": "cr dx rx xr radiograph radiography roentgen plainfilm",
    "mri": "mr magneticresonance magneticresonanceimaging nmr",
    "ct": "cat computedtomography",
    "mammography": "mg mammo mammogram",
    "pet": "pt positronemissiontomography",
    "spect": "nm scintigraphy",
    "dermatoscopy": "dermoscopy dermatoscope",
    "histology": "histopathology pathology sm wsi he hande",
    "fundus": "fundusphotography funduscopy op retinography",
    "oct": "opticalcoherencetomography",
    "mra": "mrangiography magneticresonanceangiography",
    "electron-microscopy": "em tem sem",
    "endoscopy": "es colonoscopy gastroscopy",
    "angiography": "xa dsa",
}
_SAME_ANATOMIES = {
    "chest": "thorax thoracic",
    "lung": "pulmonary pulmo",
    "colon": "colorectal bowel largeintestine",
    "breast": "mamma mammary",
    "brain": "cerebrum cerebral neuro",
    "kidney": "renal",
    "liver": "hepatic",
    "heart": "cardiac cor",
    "abdomen": "abdominal belly",
    "skin": "derma cutaneous",
    "ribs": "rib",
    "spine": "vertebra vertebrae spinal",
    "esophagus": "oesophagus",
    "teeth": "tooth dental",
    "adrenal": "adrenals adrenalgland",
}


def unknown_words(domain: Domain) -> list[str]:
    """A sentence for each word of a domain that is no known one; none where it says `new: true`."""
    if domain.new:
        return []
    found = []
    if domain.modality == "xray" and domain.anatomy == "chest":
        found.append("modality 'xray' of the chest is 'chest-xray': write so")
    for field, word, words, same in (
        ("modality", domain.modality, MODALITIES, _SAME_MODALITIES),
        ("anatomy", domain.anatomy, ANATOMIES, _SAME_ANATOMIES),
    ):
        if word in words:
            continue
        close = _nearest(word, words, same)
        hint = f"Did you mean {close!r}? " if close else ""
        found.append(
            f"{field} {word!r} is no known word. {hint}Sites share what they learn with those that "
            f"spell it alike: write one of {', '.join(sorted(words - {UNKNOWN}))}, or add "
            "`new: true` to the domain of every site that has this word"
        )
    return found


def _nearest(word: str, words: Set[str], same: Mapping[str, str]) -> str | None:
    """The known word that somebody has meant."""
    known = {_bare(own): own for own in words}
    known |= {_bare(other): own for own, others in same.items() for other in others.split()}
    close = get_close_matches(_bare(word), known, n=1, cutoff=0.6)
    return known[close[0]] if close else None


def _bare(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.casefold())

"""Words for modality and anatomy: what MedMNIST shows, and what sites can declare. Loads no torch.

Sites that spell a word in two ways have two kinds of image and silently share no concepts. So each
word has one spelling here, and a site that uses a word from outside this list has to say `new`.

Source: Yang et al. 2023, arXiv:2110.14795, table 1 (modality and anatomy of each MedMNIST set).
"""

import re
from collections.abc import Mapping, Set
from difflib import get_close_matches

from medformer.config import UNKNOWN, Domain, ModelConfig

MEDMNIST = {
    "pathmnist": ("histology", "colon"),
    "chestmnist": ("chest-xray", "chest"),
    "dermamnist": ("dermatoscopy", "skin"),
    "octmnist": ("oct", "retina"),
    "pneumoniamnist": ("chest-xray", "chest"),
    "retinamnist": ("fundus", "retina"),
    "breastmnist": ("ultrasound", "breast"),
    "bloodmnist": ("microscopy", "blood"),
    "tissuemnist": ("microscopy", "kidney"),
    "organamnist": ("ct", "abdomen"),
    "organcmnist": ("ct", "abdomen"),
    "organsmnist": ("ct", "abdomen"),
    "organmnist3d": ("ct", "abdomen"),
    "nodulemnist3d": ("ct", "lung"),
    "adrenalmnist3d": ("ct", "adrenal"),
    "fracturemnist3d": ("ct", "ribs"),
    "vesselmnist3d": ("mra", "brain"),
    "synapsemnist3d": ("electron-microscopy", "brain"),
}
"""MedMNIST set -> modality and anatomy of its images."""

EVERYTHING = ModelConfig(
    stems=("2d-1", "2d-3", "3d-1"),
    modalities=tuple(sorted({modality for modality, _ in MEDMNIST.values()})),
    anatomies=tuple(sorted({anatomy for _, anatomy in MEDMNIST.values()})),
    domains=("any",),
)
"""A vocabulary for every MedMNIST set, 2D and 3D; the default of `medformer.build`. Its domain
`any` stands for the domains of sites to come."""

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
"""Modalities that need no `new: true`, whether a model has seen them or not."""
ANATOMIES = frozenset({UNKNOWN, *EVERYTHING.anatomies, *_MORE_ANATOMIES.split()})
"""Anatomies that need no `new: true`, whether a model has seen them or not."""

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
"""Modality -> other names of it, in letters and digits only."""
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
"""Anatomy -> other names of it, in letters and digits only."""


def unknown_words(domain: Domain) -> list[str]:
    """Return a sentence for each word of a domain that is not known; none if it says `new: true`.

    >>> from medformer import Domain
    >>> unknown_words(Domain(name="north", modality="ct", anatomy="chest", channels=1))
    []
    >>> unknown_words(Domain(name="north", modality="CT", anatomy="chest", channels=1))[0][:54]
    "modality 'CT' is not a known word. Did you mean 'ct'? "

    Args:
        domain: A site's declaration.
    """
    if domain.new:
        return []
    problems = []
    # Both words are known, but an image of the chest has a modality for itself in MedMNIST.
    if domain.modality == "xray" and domain.anatomy == "chest":
        problems.append("modality 'xray' of the chest is 'chest-xray': write that")
    for field, word, words, same in (
        ("modality", domain.modality, MODALITIES, _SAME_MODALITIES),
        ("anatomy", domain.anatomy, ANATOMIES, _SAME_ANATOMIES),
    ):
        if word in words:
            continue
        close = _nearest(word, words, same)
        hint = f"Did you mean {close!r}? " if close else ""
        problems.append(
            f"{field} {word!r} is not a known word. {hint}Sites share what they learn with those "
            f"that spell it alike: write one of {', '.join(sorted(words - {UNKNOWN}))}, or add "
            "`new: true` to the domain of every site that has this word"
        )
    return problems


def _nearest(word: str, words: Set[str], same: Mapping[str, str]) -> str | None:
    """Return the known word that was probably meant, by its spelling or one of its other names."""
    known = {_bare(name): name for name in words}
    known |= {_bare(other): name for name, others in same.items() for other in others.split()}
    close = get_close_matches(_bare(word), known, n=1, cutoff=0.6)
    return known[close[0]] if close else None


def _bare(word: str) -> str:
    """Reduce a word to its letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", word.casefold())

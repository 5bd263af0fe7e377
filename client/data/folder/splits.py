"""Spellings of splits and of kinds of files, in a cell or as the name of a folder."""

import re
import unicodedata

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": "train", "training": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
_FILLING_WORDS = """
set sets split splits data dataset datasets image images img imgs picture pictures file files
sample samples case cases the of official
"""
# A user who means train, val or test by one of these has to rename it: `dev` is val to some and
# train to others, and no list holds every language.
_DOUBTFUL_WORDS = """
dev devel development holdout hold out heldout held eval evaluation fold folds cv kfold split
subset partition unseen external internal trainval traintest
entrainement apprentissage essai entrenamiento prueba pruebas validacion addestramento prova
validazione antrenare antrenament testare validare treino treinamento teste validacao lernen
trainingsdaten testdaten validierung validierungsdaten treningowy trening walidacja
обучение тест проверка валидация 训练 训练集 测试 测试集 验证 验证集 学習 訓練 テスト 検証
"""

# Names of folders that state what the files are; such a folder is not a class.
_PICTURE_WORDS = """
data file files frame frames image images img imgs jpeg jpg picture pictures png pngs
"""
_MASK_WORDS = """
annotation annotations contour contours groundtruth gt heatmap heatmaps label labels mask masks
outline outlines overlay overlays roi rois seg segmentation segmentations segs superpixel
superpixels
"""


def unaccented(text: str) -> str:
    """Return a text with plain letters in place of letters with accents.

    Args:
        text: Any text.
    """
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c))


_PICTURES = frozenset(_PICTURE_WORDS.split())
_MASKS = frozenset(_MASK_WORDS.split())
_FILLING = frozenset(_FILLING_WORDS.split())
_DOUBTFUL = frozenset(unaccented(_DOUBTFUL_WORDS).split())


def split_of(name: str) -> str | None:
    """Return train, val or test where a name clearly means it: `Training`, `TRAIN_SET`, `valid`.

    `dev` and `holdout` are refused: some people use them for val, others for test.

    Args:
        name: A cell or the name of a folder.
    """
    # `training_images_set` means train: only one word of it counts.
    own = [word for word in words(name) if word not in _FILLING]
    return _spelt(own[0]) if len(own) == 1 else None


def like_a_split(name: str) -> bool:
    """Return whether a name looks like a split, or like a fold of a cross-validation.

    Args:
        name: A cell or the name of a folder or column.
    """
    every = words(name)
    kept = [word for word in every if word not in _FILLING]
    named = "split" in every or "splits" in every or any(map(_known, kept))
    return named and all(_known(word) or word.isdecimal() for word in kept)


def like_files(name: str, *, masks: bool = False) -> bool:
    """Return whether a name states what its files are (`images`, `masks`), and so not a class.

    Args:
        name: The name of a folder.
        masks: True to ask for masks and outlines alone.
    """
    own = [word for word in words(name) if not word.isdecimal()]
    known = _MASKS if masks else _MASKS | _PICTURES
    if "".join(own) in known:  # `ground_truth` is two words
        return True
    # `train_masks` begins with a split.
    both = all(word in known or word in _PICTURES or _known(word) for word in own)
    return bool(own) and own[-1] in known and both


def masked(stem: str) -> str | None:
    """Return `scan7` for `scan7_mask`, `scan7_mask_1` and `scan7-segmentation`: the image of a
    mask.

    Args:
        stem: The name of a file without its suffix.
    """
    found = re.fullmatch(r"(.+?)[ _.-]+([A-Za-z]+)(?:[ _.-]*\d{1,3})?", stem)
    return found[1] if found and found[2].casefold() in _MASKS else None


def _known(word: str) -> bool:
    return _spelt(word) is not None or word in _DOUBTFUL


def _spelt(word: str) -> str | None:
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    for ending in ("sets", "set", "data", "images", "s"):
        if word.endswith(ending) and word.removesuffix(ending) in _SPELLINGS:
            return _SPELLINGS[word.removesuffix(ending)]
    return None


def words(name: str) -> list[str]:
    """Split a name into words without accents: `TrainSet_01` -> train, set, 01.

    Args:
        name: The name of a file, folder or column.
    """
    plain = re.sub(r"([a-z])([A-Z])", r"\1 \2", unaccented(name))
    return re.findall(r"[^\W\d_]+|\d+", plain.casefold())

"""Names of splits as people spell them, in a cell or as a folder."""

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
# Whoever means train, val or test by one of these has to rename it: `dev` is val to some and train
# to others, and no list holds every language.
_DOUBTFUL_WORDS = """
dev devel development holdout hold out heldout held eval evaluation fold folds cv kfold split
subset partition unseen external internal trainval traintest
entrainement apprentissage essai entrenamiento prueba pruebas validacion addestramento prova
validazione antrenare antrenament testare validare treino treinamento teste validacao lernen
trainingsdaten testdaten validierung validierungsdaten treningowy trening walidacja
обучение тест проверка валидация 训练 训练集 测试 测试集 验证 验证集 学習 訓練 テスト 検証
"""


def _unaccented(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c))


_FILLING = frozenset(_FILLING_WORDS.split())
_DOUBTFUL = frozenset(_unaccented(_DOUBTFUL_WORDS).split())


def split_of(name: str) -> str | None:
    """train, val or test where a name means it beyond doubt: `Training`, `TRAIN_SET`, `valid`.

    `dev` and `holdout` are not among them: to some they are val, to others test.
    """
    words = [word for word in _words(name) if word not in _FILLING]
    return _spelt(words[0]) if len(words) == 1 else None


def like_a_split(name: str) -> bool:
    """Whether a name looks like a split, or like a fold of a cross-validation."""
    words = _words(name)
    kept = [word for word in words if word not in _FILLING]
    named = "split" in words or "splits" in words or any(map(_known, kept))
    return named and all(_known(word) or word.isdecimal() for word in kept)


def _known(word: str) -> bool:
    return _spelt(word) is not None or word in _DOUBTFUL


def _spelt(word: str) -> str | None:
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    for ending in ("sets", "set", "data", "images", "s"):
        if word.endswith(ending) and word.removesuffix(ending) in _SPELLINGS:
            return _SPELLINGS[word.removesuffix(ending)]
    return None


def _words(name: str) -> list[str]:
    """`TrainSet_01` -> train, set, 01; without accents."""
    plain = re.sub(r"([a-z])([A-Z])", r"\1 \2", _unaccented(name))
    return re.findall(r"[^\W\d_]+|\d+", plain.casefold())

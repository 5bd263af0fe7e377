"""The model from which finetuning starts: that of a run, or the site's own copy of a run."""

from pathlib import Path

import torch

from client.local.store import LocalError
from client.local_state import final_state
from client.site import Site
from client.state import Store, StoreError
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.library.model_file import read_start
from medformer.library.models import load, seeded
from medformer.model import Medformer
from medformer.sharing import is_local

LAST_ROUND = 10**6
"""Number beyond every round that a schedule can have."""


def shared_start(path: Path, site: Site) -> Medformer:
    """Read the model of a run, which must know the site's kind of image.

    Args:
        path: The model file.
        site: The declaration of the site.
    Raises:
        ConfigError: It lacks the site's modality, anatomy or stem, or it is the model of sites
            with another kind of image.
        ModelFileError: It is unreadable, or private images may be recoverable from it.
    """
    header, domain = read_start(path), site.domain
    # Its encoder went on with other images: the start would be worse than need be. A site whose
    # kind of image has no model starts from any.
    if domain.kind in header.card.other_cohorts:
        raise ConfigError(
            f"{path}: is the model that sites with {header.card.cohort} share, and this site has "
            f"{domain.kind}: take model-{domain.kind}.safetensors of the same run"
        )
    check_known(header.config, site, str(path))
    return load(path)


def check_known(config: ModelConfig, site: Site, model: str) -> None:
    """Refuse a model that lacks what the site's images need.

    Args:
        config: The model's vocabulary.
        site: The declaration of the site.
        model: The model's file, or its name, for the error.
    Raises:
        ConfigError: It lacks the site's modality, anatomy or stem.
    """
    domain = site.domain
    for option, name, known in (
        ("modality", domain.modality, ("unknown", *config.modalities)),
        ("anatomy", domain.anatomy, ("unknown", *config.anatomies)),
        ("stem", domain.stem, config.stems),
    ):
        if name not in known:
            raise ConfigError(
                f"{model}: has no {option} {name!r}: add it with fedmedformer model extend "
                f"{model} --{option} {name} --out FILE, or correct site.yaml"
            )


def own_copy(shared: Medformer, site: Site, state: Path, run: str) -> Medformer:
    """Return the model that this site trained alone at the end of a run (`alone` phases), with its
    heads.

    Args:
        shared: The shared model of that run.
        site: The declaration of the site.
        state: The guard's state folder; it is only read.
        run: The run's id.
    Raises:
        LocalError: The folder holds no such run, or the site trained nothing alone in it.
    """
    try:
        found = Store(state, run).get_state(LAST_ROUND)
    except StoreError as error:
        raise LocalError(str(error)) from error
    if found is None:
        known = sorted(p.parent.name for p in (state / "runs").glob("*/state"))
        raise LocalError(f"{state}: holds no run {run!r}; there are: {', '.join(known) or 'none'}")
    own = final_state(found).parameters
    # Heads alone are not a copy of the model: their encoder is the shared one.
    if all(is_local(name) for name in own):
        raise LocalError(f"run {run}: this site trained no phase alone, and has no own copy")
    # The seed does not matter: the kept heads replace the fresh ones.
    model = with_heads(shared, site, 0)
    before = model.state_dict()
    # A clear message: load_state_dict would list every tensor.
    if any(before.get(k, torch.zeros(0)).shape != v.shape for k, v in own.items()):
        raise LocalError(
            f"run {run}: trained another model, or other tasks, than those given: name the model "
            "file that this run left"
        )
    model.load_state_dict(before | own)
    return model


def with_heads(start: Medformer, site: Site, seed: int) -> Medformer:
    """Return the shared tensors of `start` with fresh local ones for the site's tasks.

    Args:
        start: A model of the same architecture.
        site: The declaration of the site.
        seed: Seed of the fresh tensors.
    """
    if start.config.network is not None or any(task.head for task in site.tasks):
        raise LocalError(
            "a hospital's own model is made of Medformer and its linear heads: this one has code "
            "from outside in their place (network, or the `head` of a task)"
        )
    model = seeded(start.config, site.tasks, site=True, seed=seed)
    shared = {k: v for k, v in start.state_dict().items() if not is_local(k)}
    model.load_state_dict(model.state_dict() | shared)
    return model

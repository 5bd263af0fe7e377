"""Abstention: other modalities are refused, own images mostly not; the limit is what it says."""

import numpy as np
import pytest
import torch

import medformer
from client.data.load import read
from client.local.finetune import as_channels, strangers
from client.local.novelty import Novelty, conformal_rank, features, fit, shrunk
from client.site import Privacy, Site
from medformer import phantoms
from medformer.config import Domain, Task
from medformer.model import Medformer


def phantom_site(kind: str, records: int = 300) -> Site:
    facts = phantoms.KINDS[kind]
    return Site(
        name="north",
        domain=Domain(
            name="a",
            modality=facts.modality,
            anatomy=facts.anatomy,
            channels=facts.channels,
            size=28,
        ),
        tasks=(Task(name="t", kind="multi-class", classes=len(facts.classes)),),
        data={"source": "phantoms", "kind": kind, "records": records},  # type: ignore[arg-type]
        privacy=Privacy(n_public=records),
    )


@pytest.fixture(scope="module")
def model() -> Medformer:
    return medformer.build("tiny").eval()


def abstains(model: Medformer, site: Site, novel: Novelty, images: np.ndarray) -> float:
    pixels = torch.from_numpy(as_channels(images, site.domain.channels))
    far = novel.distances(features(model, site.domain, pixels, None)) > novel.limit
    return float(far.double().mean())


ALIKE = {("abdomen", "chest"), ("abdomen", "blood")}
"""Crops of a CT show so many things that grey images of these kinds are none the stranger: a known
weakness, of which `site finetune` warns."""


@pytest.mark.parametrize("kind", phantoms.KINDS)
def test_other_modalities_are_refused_and_own_images_are_not(model: Medformer, kind: str):
    """Phantoms of every kind, grey and coloured, and noise are tried."""
    site = phantom_site(kind)
    novel = fit(model, site.domain, read(site, "train"), read(site, "val"), 0.05)
    for other in phantoms.KINDS:
        images, _ = phantoms.generate(other, 200, seed=90)
        share = abstains(model, site, novel, images)
        assert (kind, other) in ALIKE or (share < 0.15 if other == kind else share > 0.9), other
    noise = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    assert abstains(model, site, novel, noise) == 1
    assert abstains(model, site, novel, np.zeros((1, 28, 28), np.uint8)) == 1
    found = strangers(model, site, novel)
    assert set(found) == set(phantoms.KINDS) - {kind}
    assert min(share for other, share in found.items() if (kind, other) not in ALIKE) > 0.9


def test_an_image_depends_on_itself_alone(model: Medformer):
    """Other images in the same request do not change its distance."""
    site = phantom_site("chest", 40)
    images = read(site, "train").stacks[0].images
    whole = features(model, site.domain, images, None)
    each = torch.cat([features(model, site.domain, images[i : i + 1], None) for i in range(40)])
    assert torch.allclose(whole, each, atol=1e-4)


def test_volumes_have_a_distance_too():
    """Novelty also works in three dimensions."""
    model = medformer.build("tiny").eval()
    domain = Domain(name="v", modality="ct", anatomy="abdomen", channels=1, rank=3)
    spacing = torch.tensor([[2.0, 1.0, 1.0]]).expand(4, -1)
    values = features(model, domain, torch.rand(4, 1, 20, 24, 28), spacing)
    assert values.shape[0] == 4
    assert values.isfinite().all()


@pytest.mark.parametrize("count", [1, 5, 19, 20, 99, 100, 399])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_limit_is_a_conformal_quantile(count: int, alpha: float):
    """The newest of n + 1 exchangeable distances exceeds the chosen one with probability 1 - rank /
    (n + 1): at most alpha where n allows it, and otherwise the least that n allows."""
    rank = conformal_rank(count, alpha)
    assert 1 <= rank <= count
    missed = 1 - rank / (count + 1)
    if count >= 1 / alpha - 1 - 1e-9:
        assert missed <= alpha + 1e-9
        assert missed > alpha - 1 / (count + 1) - 1e-9
    else:
        assert rank == count


def test_the_limit_holds_for_images_like_those_of_validation(model: Medformer):
    """Over many divisions of the same kind of image, the mean share is at most alpha."""
    site = phantom_site("ultrasound")
    train, val = read(site, "train"), read(site, "val")
    images, _ = phantoms.generate("ultrasound", 600, seed=41)
    pixels = torch.from_numpy(as_channels(images, 1))
    novel = fit(model, site.domain, train, val, 0.1)
    distances = novel.distances(features(model, site.domain, pixels, None))
    rng, shares = torch.Generator().manual_seed(0), []
    for _ in range(200):
        order = distances[torch.randperm(600, generator=rng)]
        held_out, new = order[:59], order[59:]
        limit = held_out.sort().values[conformal_rank(59, 0.1) - 1]
        shares.append(float((new > limit).double().mean()))
    assert np.mean(shares) == pytest.approx(0.1, abs=0.01)
    own = novel.distances(features(model, site.domain, val.stacks[0].images, None))
    count = len(own)
    assert int((own > novel.limit).sum()) == count - conformal_rank(count, 0.1)


def test_shrinkage_is_that_of_ledoit_and_wolf():
    """It equals their sums over rows, and is invertible with fewer rows than features."""
    for rows, width in ((200, 6), (5, 12)):
        values = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)).double()
        values = values @ torch.diag(torch.linspace(0.2, 3, width)).double()
        values = values - values.mean(0)
        sample = sum(torch.outer(x, x) for x in values) / rows
        target = sample.trace() / width * torch.eye(width, dtype=torch.float64)
        d2 = ((sample - target) ** 2).sum() / width
        b2 = sum(((torch.outer(x, x) - sample) ** 2).sum() / width for x in values) / rows**2
        share = min(float(b2 / d2), 1.0)
        wanted = share * target + (1 - share) * sample
        assert 0 < share < 1
        assert torch.allclose(shrunk(values), wanted)
        assert torch.linalg.cond(shrunk(values)) < 1e6


def test_a_single_image_and_features_that_never_change_give_finite_distances(model: Medformer):
    """Nothing is divided by zero."""
    site = phantom_site("chest", 8)
    records = read(site, "train")
    one = type(records)((records.stacks[0][:1],))
    novel = fit(model, site.domain, one, one, 0.05)
    values = features(model, site.domain, records.stacks[0].images, None)
    assert novel.distances(values).isfinite().all()
    assert novel.limit >= 0

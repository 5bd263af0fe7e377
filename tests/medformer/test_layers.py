"""Attention in windows, checkpointing, stems that stop early, white features."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from medformer.config import PRESETS, Domain, ModelConfig, Preset, Task
from medformer.encoder import Attention, Blocks
from medformer.grid import along_curve
from medformer.model import Medformer
from medformer.objectives import trained_parameters
from medformer.output import WHITE_NORM, Whitening, readout, spread

SMALL = Preset(
    width=32,
    blocks=2,
    heads=4,
    mlp_ratio=2,
    latents=1,
    stem_widths=(16, 32),
    window=16,
    summaries=4,
)
MASKS = Task(name="outline", kind="dense", classes=3)


def by_hand(attention: Attention, tokens: Tensor, window: int, summaries: int) -> Tensor:
    """Attention in windows, one query at a time."""
    count = tokens.shape[1]
    edges = [(i * count // summaries, -(-(i + 1) * count // summaries)) for i in range(summaries)]
    means = torch.stack([tokens[:, a:b].mean(1) for a, b in edges], 1)
    rows = []
    for i in range(count):
        start = i - i % window
        if start + window > count:
            start = count - window
        memory = torch.cat([tokens[:, start : start + window], means], 1)
        rows.append(attention(tokens[:, i : i + 1], memory))
    return torch.cat(rows, 1)


@pytest.mark.parametrize("count", [16, 17, 31, 48, 50])
def test_attention_in_windows_is_attention_to_window_and_means(count: int):
    """Also where the last window is not full."""
    torch.manual_seed(0)
    attention = Attention(32, 4)
    tokens = torch.randn(2, count, 32)
    fast = attention.in_windows(tokens, 16, 4)
    assert torch.allclose(fast, by_hand(attention, tokens, 16, 4), atol=1e-5)


def test_short_sequences_attend_to_everything():
    """Up to a window nothing is summarised, and the order of the tokens does not matter."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 2)
    tokens = torch.randn(2, 16, 32)
    turned = blocks(tokens.flip(1), torch.arange(16)).flip(1)
    assert torch.allclose(blocks(tokens, torch.arange(16)), turned, atol=1e-5)


def test_long_sequences_come_back_in_their_order():
    """Sorting along the curve is undone: the last token's path does not show in its place."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 1)
    tokens = torch.randn(1, 36, 32)
    ranks = along_curve((6, 6))
    sorted_first = blocks(tokens[:, ranks.argsort()], torch.arange(36))[:, ranks]
    assert torch.allclose(blocks(tokens, ranks), sorted_first, atol=1e-5)


def test_memory_of_attention_grows_linearly_with_the_tokens():
    """Twice the tokens, twice the scores: counted, because clocks and allocators are noisy."""
    scores: list[int] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores.append(q.shape[:-1].numel() * k.shape[-2])
        return real(q, k, v)

    torch.nn.functional.scaled_dot_product_attention = spy  # type: ignore[assignment]
    try:
        attention = Attention(32, 4)
        counts = []
        for count in (256, 512, 1024):
            scores.clear()
            attention.in_windows(torch.randn(1, count, 32), 16, 4)
            counts.append(sum(scores))
    finally:
        torch.nn.functional.scaled_dot_product_attention = real
    assert counts == [counts[0], 2 * counts[0], 4 * counts[0]]


def test_checkpointing_changes_memory_only():
    """Same output, same gradients."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 2)
    tokens = torch.randn(2, 20, 32)
    results = []
    for on in (False, True):
        blocks.checkpointing = on
        blocks.zero_grad()
        output = blocks(tokens, torch.arange(20))
        output.square().sum().backward()
        gradients = [p.grad.clone() for p in blocks.parameters() if p.grad is not None]
        results.append([output.detach(), *gradients])
    assert len(results[0]) == 1 + len(list(blocks.parameters()))
    for plain, saved in zip(*results, strict=True):
        assert torch.allclose(plain, saved, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "rank", "size", "tokens"),
    [
        ("tiny", 2, 28, 16),
        ("tiny", 3, 28, 64),
        ("small", 2, 28, 49),
        ("small", 2, 64, 64),
        ("small", 2, 224, 196),
        ("small", 3, 28, 64),
        ("small", 3, 64, 64),
        ("base", 2, 28, 49),
        ("base", 2, 64, 256),
        ("base", 2, 224, 196),
        ("base", 3, 64, 64),
    ],
)
def test_small_images_are_cut_finer(preset: str, rank: int, size: int, tokens: int):
    """The stem stops where the tokens fit the budget, so that every size gets some 50 to 250."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=rank, size=size)
    side = -(-size // 2 ** PRESETS[preset].depth(domain))
    assert side**rank == tokens


@pytest.mark.parametrize(("rank", "size"), [(2, 28), (2, 64), (2, 224), (3, 16), (3, 28)])
def test_only_what_an_image_goes_through_is_trained(rank: int, size: int):
    """The finest and coarsest images of `small` have stages of their own."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=rank, size=size)
    task = Task(name="t", kind="multi-class", classes=3)
    model = Medformer(ModelConfig.for_domains([domain], "small"), [task])
    torch.nn.init.normal_(model.output.heads["t"].weight)
    torch.nn.init.normal_(model.input.attention.out.weight)
    images = torch.randn(2, 1, *[min(size, 40)] * rank)
    model.logits(images, domain, "t").square().sum().backward()
    reached = [name for name, p in model.named_parameters() if p.grad is not None]
    assert reached == trained_parameters(model, domain, ["t"], {"supervised": 1.0})
    depth = PRESETS["small"].depth(domain)
    assert any(".fine." in name for name in reached) == (depth == 2)
    assert any(".coarse." in name for name in reached) == (depth == 4)
    assert any(".stages.0." in name for name in reached) == (depth == 3)


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize(
    ("spatial", "size"), [((28, 28), 28), ((33, 70), 28), ((130, 97), 128), ((17, 20, 24), 28)]
)
def test_a_dense_task_has_a_class_for_every_pixel(preset: str, spatial: tuple[int, ...], size: int):
    """2D and 3D, any size, and the loss reaches tokens and stem."""
    rank = len(spatial)
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=rank, size=size)
    torch.manual_seed(0)
    model = Medformer(ModelConfig.for_domains([domain], preset), [MASKS])
    for value in model.output.heads.parameters():
        torch.nn.init.normal_(value, std=0.1)
    logits = model.logits(torch.randn(2, 1, *spatial), domain, "outline")
    assert logits.shape == (2, 3, *spatial)
    logits.square().sum().backward()
    stem = model.input.stems[domain.stem]
    used = PRESETS[preset].stages(PRESETS[preset].depth(domain))
    assert stem.get_submodule(used[0])[0].weight.grad.any()  # type: ignore[index]
    assert model.encoder.norm.weight.grad is not None


def test_depths_are_the_tokens_before_each_block_and_after_the_last():
    """In the order of the grid, also where a long sequence was sorted."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 2)
    for count, ranks in ((12, torch.arange(12)), (36, along_curve((6, 6)))):
        tokens = torch.randn(2, count, 32)
        found = blocks.depths(tokens, ranks)
        assert torch.equal(found[0], tokens)
        assert torch.equal(found[-1], blocks(tokens, ranks))
        if count <= SMALL.window:
            assert torch.equal(found[1], blocks[0](tokens))
    assert len(found) == 3


def test_a_head_sees_how_much_tokens_differ_from_place_to_place():
    """Texture: at every depth, though the mean is the same; and one token has no spread, nor an
    infinite slope."""
    config = ModelConfig.for_domains([Domain(name="d", modality="m", anatomy="a", channels=1)])
    task = Task(name="t", kind="multi-class", classes=3)
    model = Medformer(config, [task])
    torch.nn.init.normal_(model.output.textures["t"].weight)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 16, 64, generator=generator)
    flat, mean = torch.zeros(1, 16, 64), noise.mean(1, keepdim=True)
    plain = [mean + flat] * 3
    for depth in range(3):
        rough = [noise if i == depth else mean + flat for i in range(3)]
        assert not torch.allclose(model.output(rough, "t"), model.output(plain, "t"), atol=1e-2)
    one = torch.ones(2, 1, 64, requires_grad=True)
    model.output([one, one, one], "t").sum().backward()
    assert one.grad is not None
    assert one.grad.isfinite().all()
    assert float(spread(noise).sub(noise.std(1, correction=0)).abs().max()) < 1e-4


def test_concepts_learn_an_answer_as_one_head_of_everything_would():
    """Where a task reads its answer in fixed directions at right angles, a step changes the logits
    as it would change those of a head that sites had in common (section 30 of the log)."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=1)
    config = ModelConfig.for_domains([domain]).between([domain, domain])
    model = Medformer(config, [Task(name="t", kind="multi-class", classes=3)])
    output, generator = model.output, torch.Generator().manual_seed(0)
    depths = list(torch.randn(3, 4, 16, 64, generator=generator))
    other = list(torch.randn(3, 2, 16, 64, generator=generator))
    logits = output(depths, "t", domain.kind)
    wanted = torch.randn(logits.shape, generator=generator)
    own = [output.heads["t"].weight, output.heads["t"].bias, output.textures["t"].weight]
    common = list(output.concepts.parameters())
    slopes = torch.autograd.grad((logits * wanted).sum(), [*own, *common])

    def after(trained: list[Tensor], slope: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            for value, by in zip(trained, slope, strict=True):
                value -= 0.1 * by
            found: Tensor = output(other, "t", domain.kind)
            for value in trained:
                value.zero_()
        return found

    apart, together = after(own, slopes[:3]), after(common, slopes[3:])
    assert float(apart.abs().max()) > 0.1
    assert torch.allclose(apart, together, atol=1e-4)
    assert not output(other, "t").any()


def test_sites_that_ask_the_same_read_in_the_same_directions():
    """At right angles within a question, and nearly so between two; more outputs than concepts have
    length 1 at least."""
    tasks = [Task(name=n, kind="multi-class", classes=c) for n, c in (("a", 5), ("a", 6), ("b", 5))]
    same, *others = [readout(task) for task in tasks]
    assert torch.equal(same, readout(tasks[0].model_copy(update={"weight": 2.0})))
    assert torch.allclose(same @ same.T, torch.eye(5), atol=1e-6)
    for other in others:
        assert float((same @ other.T).abs().max()) < 0.6
    many = readout(Task(name="m", kind="multi-label", classes=40))
    assert torch.allclose(many.norm(dim=1), torch.ones(40), atol=1e-6)


def test_features_that_vary_within_groups_are_white_afterwards():
    """However far apart the groups are: alike in all directions, of the size that was agreed on,
    and a direction in which nothing varies is not blown up."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    scales = torch.tensor([10.0, 5.0, 2.0, 1.5, 1.5, 0.0])
    groups = [
        (torch.randn(4_000, 6, generator=generator) * scales) @ basis.T + far
        for far in (40 * basis[0], -40 * basis[1])
    ]
    whitening = Whitening(6)
    assert torch.equal(whitening(groups[0]), groups[0])
    whitening.fit(groups)
    white = [whitening(group) for group in groups]
    within = torch.stack([group.T.cov(correction=0) for group in white]).mean(0)
    values = torch.linalg.eigvalsh(within)
    assert float(values[0]) < 1e-4
    assert float(values[-1] / values[1]) < 1.5
    assert float(values.sum().sqrt()) == pytest.approx(WHITE_NORM, rel=1e-3)
    assert torch.allclose((white[0].mean(0) + white[1].mean(0)) / 2, torch.zeros(6), atol=1e-3)
    assert not any(p.requires_grad for p in whitening.parameters())

"""Mutations of clipping, noise, sampling, accounting and release."""

from tests.mutations.mutation import Mutation

MECHANISM = (
    Mutation(
        "no noise",
        "client/privacy/noise.py",
        "return release(total.double(), std, self)",
        "return total.double()",
    ),
    Mutation(
        "half the noise",
        "client/privacy/noise.py",
        "return release(total.double(), std, self)",
        "return release(total.double(), std / 2, self)",
    ),
    Mutation(
        "noise of the bound of one group where two are clipped apart",
        "client/privacy/plan.py",
        "max_grad_norm=self.phase.sensitivity,",
        "max_grad_norm=self.phase.max_grad_norm,",
    ),
    Mutation(
        "the whole batch clipped by its largest norm",
        "client/privacy/clipping.py",
        "factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)",
        "factors = torch.where(usable, (bound / (norms.max() + 1e-6)).clamp(max=1.0), 0.0)",
    ),
    Mutation(
        "the batch's mean clipped, not its units",
        "client/privacy/clipping.py",
        """            for name, total in table.weighted(factors, usable).items():
""",
        """            whole_sum = table.weighted(usable.float(), usable)
            length = torch.sqrt(sum(t.square().sum() for t in whole_sum.values())) / len(valid)
            factors = torch.where(usable, (bound / length).clamp(max=1.0), 0.0)
            for name, total in table.weighted(factors, usable).items():
""",
    ),
    Mutation(
        "no clipping",
        "client/privacy/clipping.py",
        "factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)",
        "factors = usable.float()",
    ),
    Mutation(
        "shuffled batches of a fixed size instead of Poisson sampling",
        "client/privacy/engine.py",
        "return (self._noise.uniform(count) < self._sample_rate).nonzero().flatten()",
        "return self._noise.uniform(count).argsort()[: round(count * self._sample_rate)].sort()[0]",
    ),
    Mutation(
        "sampling rate twice as high as accounted for",
        "client/privacy/engine.py",
        "self._sample_rate = plan.sample_rate",
        "self._sample_rate = min(1.0, 2 * plan.sample_rate)",
    ),
    Mutation(
        "division by the drawn batch's size",
        "client/privacy/engine.py",
        "total = self.accumulate(losses, valid, parts, units)\n        self.optimizer.step()",
        "total = self.accumulate(losses, valid, parts, units)\n"
        "        self.optimizer.expected_batch_size = max(1, len(valid))\n"
        "        self.optimizer.step()",
    ),
    Mutation(
        "local heads trained without noise",
        "client/privacy/engine.py",
        "self._total = self._noise.noised(self.total(), self._std)",
        "shared = sum(p.numel() for p in self.param_groups[0]['params'])\n"
        "        noisy = self._noise.noised(self.total()[:shared], self._std)\n"
        "        self._total = torch.cat([noisy, self.total()[shared:]])",
    ),
    Mutation(
        "noise seeded by the round's number alone",
        "client/simulated.py",
        "return SeededNoise(seed, site.name, reservation.row, round_, attempt)",
        "return SeededNoise(seed, site.name, round_)",
    ),
    Mutation(
        "the same noise in every step",
        "client/privacy/noise.py",
        "return release(total.double(), std, self)",
        "return release(total.double(), std, SeededNoise('again'))",
    ),
    Mutation(
        "epsilon of one round reported as the run's",
        "client/privacy/plan.py",
        "mechanisms = [p.mechanism() for p in phases]",
        "mechanisms = [p.mechanism(p.steps_per_round) for p in phases]",
    ),
    Mutation(
        "accountant reset with each run",
        "client/privacy/composition.py",
        "        total = self.nothing\n        for row in reservations:",
        "        total = self.nothing\n        for row in list(reservations)[-1:]:",
    ),
    Mutation(
        "spare rounds not charged",
        "client/privacy/plan.py",
        "parts = [(row.sample_rate, row.steps) for row in rows if row.steps]",
        "parts = [(row.sample_rate, row.steps) for row in rows if row.steps and row.name != SPARE]",
    ),
    Mutation(
        "budget reserved after the training",
        "client/guard.py",
        "        row = run.start_attempt(request)\n",
        '        row = ""\n',
    ),
    Mutation(
        "a lost round trained again at no cost",
        "client/ledger/ledger.py",
        "if attempt > 0 and spares_used >= reservation.spare_rounds:",
        "if attempt > 0 and spares_used > 1000:",
    ),
    Mutation(
        "a ledger put back from an old copy trained on",
        "client/admitted.py",
        "if ledger_hash and not self.ledger.holds(ledger_hash):",
        "if ledger_hash and not self.ledger:",
    ),
    Mutation(
        "patients drawn and clipped as images",
        "client/training.py",
        'by_patient=privacy.unit == "patient"',
        "by_patient=False",
    ),
    Mutation(
        "each view of an image clipped as a unit of its own",
        "client/training.py",
        "return rows.repeat_interleave(views), units.repeat_interleave(views)",
        "return rows.repeat_interleave(views), None",
    ),
    Mutation(
        "norms of a patient's images summed instead of the norm of their mean",
        "client/privacy/clipping.py",
        """            whole = Grouping(units, valid)
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
""",
        """            whole = Grouping(units, valid)
            apart = whole.shares.square() * Table(entries).squares()
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
            if units is not None:
                norms = torch.zeros_like(norms).index_add_(0, units, apart).sqrt()
""",
    ),
    Mutation(
        "gradients that are not finite let through",
        "client/privacy/clipping.py",
        "usable = norms.isfinite() & valid",
        "usable = valid",
    ),
    Mutation(
        "invalid rows counted",
        "client/privacy/clipping.py",
        "usable = norms.isfinite() & valid",
        "usable = norms.isfinite()",
    ),
    Mutation(
        "noise in floating point, off the grid",
        "client/privacy/discrete.py",
        "rounded = (total / unit).round_().clamp_(-(2.0**51), 2.0**51)",
        "rounded = (total / unit).clamp_(-(2.0**51), 2.0**51)",
    ),
    Mutation(
        "exact loss sent by a deployment",
        "client/guard.py",
        "result.loss if self.exact else None)",
        "result.loss)",
    ),
    Mutation(
        "local tensors sent",
        "client/training.py",
        "return {n: named[n].detach().numpy().copy() for n in shared_names(names)}",
        "return {n: named[n].detach().numpy().copy() for n in names}",
    ),
    Mutation(
        "a parameter that a model's own code writes to later passes",
        "client/privacy/models/watch.py",
        "self._kept = [*model.named_buffers(), *model.named_parameters()]",
        "self._kept = [*model.named_buffers()]",
        ("test_engine_models.py",),
        audited=False,
    ),
    Mutation(
        "only the first row's loss is held against the other rows",
        "client/privacy/models/watch.py",
        "if neighbours_of(losses, output, (0, len(losses) - 1)):",
        "if neighbours_of(losses, output, (0,)):",
        ("test_engine_models.py",),
        audited=False,
    ),
    Mutation(
        "a model is checked as it begins, where zeros hide what comes before them",
        "client/privacy/models/alone.py",
        "p.add_(STIR * torch.randn(p.shape, generator=self._random))",
        "torch.randn(p.shape, generator=self._random)",
        ("test_engine_models.py",),
        audited=False,
    ),
)

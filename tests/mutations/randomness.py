"""Mutations that make randomness repeat, predictable, or without effect."""

from tests.mutations.mutation import Mutation

NOISE = "client/privacy/noise.py"
STREAMS = ("test_randomness.py", "test_engine.py")

RANDOMNESS = (
    Mutation(
        "two simulated sites draw the same",
        "client/simulated.py",
        "return SeededNoise(seed, site.name, reservation.row, round_, attempt)",
        "return SeededNoise(seed, reservation.row, round_, attempt)",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "a round that is trained again has the noise of the first attempt",
        "client/simulated.py",
        "return SeededNoise(seed, site.name, reservation.row, round_, attempt)",
        "return SeededNoise(seed, site.name, reservation.row, round_)",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "two runs of a site have the same noise",
        "client/simulated.py",
        "return SeededNoise(seed, site.name, reservation.row, round_, attempt)",
        "return SeededNoise(seed, site.name, round_, attempt)",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "sampling is decided by 16 bits",
        NOISE,
        "(self.words(count) >> np.uint64(11)) * 2.0**-53",
        "(self.words(count) >> np.uint64(48)) * 2.0**-16",
        STREAMS,
    ),
    Mutation(
        "a deployment's key comes from a Mersenne Twister",
        NOISE,
        "super().__init__(secrets.token_bytes(32))",
        "super().__init__(np.random.bytes(32))",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "a deployment's key has 32 random bits",
        NOISE,
        "super().__init__(secrets.token_bytes(32))",
        "super().__init__(8 * secrets.token_bytes(4))",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "one key serves all rounds of a deployed process",
        "client/guard_rpc/__main__.py",
        "guard = Guard(site, arguments.state, lambda *_: SecureNoise(), policy=policy)",
        "noise = SecureNoise()\n"
        "    guard = Guard(site, arguments.state, lambda *_: noise, policy=policy)",
        ("test_guard_start.py",),
        audited=False,
    ),
    Mutation(
        "every deployed process begins with the same key",
        NOISE,
        """class SecureNoise(NoiseSource):
    \"\"\"Cryptographic randomness for deployments.\"\"\"

    name = "secure"

    def __init__(self) -> None:
""",
        """class SecureNoise(NoiseSource):
    \"\"\"Cryptographic randomness for deployments.\"\"\"

    name = "secure"

    def __init__(self) -> None:
        secrets = type("Fixed", (), {"token_bytes": staticmethod(bytes)})
""",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "a deployment's masks, shifts and views are the same in every round",
        NOISE,
        "return torch.Generator().manual_seed(secrets.randbits(63))",
        "return torch.Generator().manual_seed(0)",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "a deployment's masks, shifts and views have 2^8 seeds",
        NOISE,
        "return torch.Generator().manual_seed(secrets.randbits(63))",
        "return torch.Generator().manual_seed(secrets.randbits(8))",
        STREAMS,
        audited=False,
    ),
    Mutation(
        "views are drawn from the key of the noise",
        NOISE,
        'seed = int.from_bytes(self._derive("views")[:8], "big", signed=True)',
        'seed = int.from_bytes(self._derive("noise")[:8], "big", signed=True)',
        STREAMS,
        audited=False,
    ),
    Mutation(
        "the key stream begins anew at every draw",
        NOISE,
        """        words = bytearray(8 * count + 64)  # the cipher wants room for a block more
""",
        """        words = bytearray(8 * count + 64)
        self._stream = getattr(self, "_again", self._stream)
        self._again = Cipher(algorithms.ChaCha20(b"k" * 32, bytes(16)), mode=None).encryptor()
""",
        STREAMS,
    ),
    Mutation(
        "a step's noise repeats every 1,000 coordinates",
        "client/privacy/discrete.py",
        "noise = torch.from_numpy(sampler(std / unit).draw(total.numel(), bits)).to(total.device)",
        "drawn = sampler(std / unit).draw(min(1000, total.numel()), bits)\n"
        "    noise = torch.from_numpy(np.resize(drawn, total.numel())).to(total.device)",
        ("test_discrete.py", "test_engine.py"),
    ),
    Mutation(
        "one coin decides for neighbours",
        "client/privacy/engine.py",
        "return (self._noise.uniform(count) < self._sample_rate).nonzero().flatten()",
        "coins = self._noise.uniform((count + 1) // 2).repeat_interleave(2)[:count]\n"
        "        return (coins < self._sample_rate).nonzero().flatten()",
        ("test_engine.py", "test_randomness.py"),
    ),
    Mutation(
        "one draw serves all steps of a round",
        "client/training.py",
        "    total, seen = 0.0, 0\n    for _ in range(phase.local_steps):\n"
        "        rows, units = whole.rows(engine.draw(len(whole)), generator)",
        "    total, seen = 0.0, 0\n    once = engine.draw(len(whole))\n"
        "    for _ in range(phase.local_steps):\n"
        "        rows, units = whole.rows(once, generator)",
        ("test_randomness.py",),
    ),
    Mutation(
        "units of the last stack of shapes are drawn at rate 1",
        "client/training.py",
        "        rows, units = whole.rows(engine.draw(len(whole)), generator)",
        """        last = torch.arange(len(whole) - len(records.stacks[-1]), len(whole))
        chosen = engine.draw(len(whole))
        chosen = torch.cat([chosen, last]).unique() if records.stacks[1:] else chosen
        rows, units = whole.rows(chosen, generator)""",
        ("test_randomness.py",),
    ),
    Mutation(
        "the count of the classes shares a round's stream",
        "client/admitted.py",
        "noise = noise_for(self.reservation, CLASS_COUNT, 0)",
        "noise = noise_for(self.reservation, 1, 0)",
        ("test_class_counts.py",),
        audited=False,
    ),
)

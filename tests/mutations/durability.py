"""Mutations by which a crash, a power cut, a second process or an old copy hands budget back."""

from tests.mutations.mutation import Mutation

LEDGER = "client/ledger/ledger.py"
ROWS = "client/ledger/rows.py"
FILES = "medformer/common/files.py"
ADMITTED = "client/admitted.py"
CRASH = ("test_ledger_crash.py", "test_ledger.py", "test_ledger_file.py")

DURABILITY = (
    Mutation(
        "the ledger is synced at checkpoints only",
        ROWS,
        'self._db.execute("PRAGMA synchronous=FULL")',
        'self._db.execute("PRAGMA synchronous=NORMAL")',
        CRASH,
        audited=False,
    ),
    Mutation(
        "the ledger is never synced",
        ROWS,
        'self._db.execute("PRAGMA synchronous=FULL")',
        'self._db.execute("PRAGMA synchronous=OFF")',
        CRASH,
        audited=False,
    ),
    Mutation(
        "the ledger's journal is kept in memory",
        ROWS,
        'self._db.execute("PRAGMA journal_mode=WAL")',
        'self._db.execute("PRAGMA journal_mode=MEMORY")',
        CRASH,
        audited=False,
    ),
    Mutation(
        "a file's content is not synced before its new name",
        FILES,
        "        os.fsync(file.fileno())\n    os.replace(partial, path)",
        "    os.replace(partial, path)",
        CRASH,
        audited=False,
    ),
    Mutation(
        "a file's new name is not synced",
        FILES,
        "        os.fsync(folder)  # the new name has to reach the disk, too",
        "        pass",
        CRASH,
        audited=False,
    ),
    Mutation(
        "the anchor is written after the ledger",
        ROWS,
        """        if self._anchor is not None:
            write_anchor(self._anchor, row)
        self._insert(row)
""",
        """        self._insert(row)
        self._db.execute("COMMIT")
        if self._anchor is not None:
            write_anchor(self._anchor, row)
        self._db.execute("BEGIN IMMEDIATE")
""",
        CRASH,
        audited=False,
    ),
    Mutation(
        "a row that only the anchor holds is dropped",
        ROWS,
        "            if missing is not None:\n                self._insert(missing)\n"
        "            elif",
        "            if missing is not None:\n                pass\n            elif",
        CRASH,
        audited=False,
    ),
    Mutation(
        "two processes decide from the same state of the ledger",
        ROWS,
        'self._db.execute("BEGIN IMMEDIATE")',
        'self._db.execute("BEGIN")',
        CRASH,
        audited=False,
    ),
    Mutation(
        "a failed commit passes for one that stands",
        ROWS,
        """        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{self.path}: the ledger cannot be written""",
        """        except sqlite3.OperationalError:
            return
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{self.path}: the ledger cannot be written""",
        CRASH,
        audited=False,
    ),
    Mutation(
        "a lost ledger is begun anew",
        LEDGER,
        "if begun and anchor is None and self.rows.last() is None:",
        "if begun and anchor is None and self.rows.last() == ():",
        ("test_ledger_file.py",),
        audited=False,
    ),
    Mutation(
        "a damaged index of the ledger goes unnoticed",
        ROWS,
        'if problems != ["ok"]:',
        "if not problems:",
        CRASH,
        audited=False,
    ),
    Mutation(
        "the chain of hashes leaves out what a row says",
        "client/ledger/chain.py",
        "*fields, digest = asdict(self).values()",
        "return True\n        *fields, digest = asdict(self).values()",
        CRASH,
        audited=False,
    ),
    Mutation(
        "two processes answer for a site at once",
        "medformer/common/locks.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        ("test_state.py",),
        audited=False,
    ),
    Mutation(
        "the row of an answer is written before the answer",
        ADMITTED,
        """        digest = self.store.put_answer(key, answer)
        self.ledger.record_answer(self.run_id, request.round, request.attempt, key, digest)
""",
        """        digest = "0" * 64
        self.ledger.record_answer(self.run_id, request.round, request.attempt, key, digest)
        self.store.put_answer(key, answer)
""",
        ("test_state.py", "test_guard.py"),
        audited=False,
    ),
    Mutation(
        "a kept answer is sent without a look at its hash",
        "client/state.py",
        "if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:",
        "if not path.read_bytes():",
        ("test_state.py", "test_guard.py"),
        audited=False,
    ),
    Mutation(
        "a round goes on from the site's oldest tensors",
        "client/state.py",
        "tensors, head = _read(older[-1])",
        "tensors, head = _read(older[0])",
        ("test_state.py", "test_guard.py"),
        audited=False,
    ),
    Mutation(
        "the hash of the counts is written before the counts",
        ADMITTED,
        """            self.store.put_counts(noisy_counts(records, self.site.tasks, std, noise))
""",
        """            self.ledger.record_count(self.run_id, "0" * 64)
            self.store.put_counts(noisy_counts(records, self.site.tasks, std, noise))
""",
        ("test_class_counts.py",),
        audited=False,
    ),
    Mutation(
        "counts that were lost are drawn again",
        ADMITTED,
        "if written is None and self.store.get_counts() is None:",
        "if self.store.get_counts() is None:",
        ("test_class_counts.py",),
        audited=False,
    ),
    Mutation(
        "an answer is sent before it is on the disk",
        FILES,
        '    partial = path.with_name(path.name + ".partial")\n    path.parent',
        "    if path.parent.name == 'answers':\n        return\n"
        '    partial = path.with_name(path.name + ".partial")\n    path.parent',
        ("test_state.py", "test_guard.py"),
        audited=False,
    ),
    Mutation(
        "an attempt is written under another request's key",
        LEDGER,
        "if here[attempt] != key:",
        "if not here[attempt]:",
        CRASH,
        audited=False,
    ),
    Mutation(
        "the answer is on the disk before the tensors that the next round begins from",
        ADMITTED,
        "        self.store.put_state(request.round, request.attempt, state)\n"
        "        digest = self.store.put_answer(key, answer)\n",
        "        digest = self.store.put_answer(key, answer)\n"
        "        self.store.put_state(request.round, request.attempt, state)\n",
        ("test_state.py",),
        audited=False,
    ),
    Mutation(
        "the anchor of another ledger passes",
        "client/ledger/anchor.py",
        "    if newest != rows[newest.seq - 1]:",
        "    if newest.seq > len(rows):",
        CRASH,
        audited=False,
    ),
)

"""Procedural medical-like images: offline demo data and public pre-training data."""

from medformer.phantoms.catalogue import KINDS, PATTERNS, PhantomKind, generate, outlined
from medformer.phantoms.scanner import Scanner

__all__ = ["KINDS", "PATTERNS", "PhantomKind", "Scanner", "generate", "outlined"]

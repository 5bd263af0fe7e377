"""Arithmetic on tensors that sites have released, the same at server and sites, without torch."""

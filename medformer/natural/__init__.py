"""Natural features: numbers that a network trained on public photographs computes of an image."""

"""Medformer: a multitask, multimodal vision transformer for medical images.

After the description in Simionescu's thesis (arXiv:2510.23325, which publishes no code); the sizes,
losses and names are this project's own. Pure PyTorch: knows neither Flower nor Opacus.
"""

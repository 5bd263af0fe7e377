"""Layers that several parts of the model use.

Letters, the same in every file of the model: B images, C channels, N tokens, K kept tokens,
L latents, D width (the length of a token), T outputs of a task. `*spatial` (pixels) and `*grid`
(tokens) are (H, W) or (D, H, W); no layer depends on which. No layer mixes the images of a batch
(GroupNorm and LayerNorm, never BatchNorm), so that per-example gradients exist.
"""

import torch
from torch import Tensor, nn

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
"""Spatial dimensions -> convolution."""
POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
"""Spatial dimensions -> max pooling."""


class Latents(nn.Module):
    """Learned tokens that are the same for every image of a batch.

    They are a module, and not a bare parameter, so that a DP engine can compute their per-example
    gradient: it is the output gradient itself.

    Args:
        count: L, number of tokens.
        width: D, length of a token.
        scale: Standard deviation of the initial values.
    """

    def __init__(self, count: int, width: int, scale: float = 0.02) -> None:
        super().__init__()
        self.tokens = nn.Parameter(scale * torch.randn(count, width))

    def forward(self, batch: Tensor) -> Tensor:
        """Repeat the tokens for each image, (B, ...) -> (B, L, D).

        Args:
            batch: Any tensor of the batch; only B is read.
        """
        return self.tokens.expand(batch.shape[0], *self.tokens.shape)

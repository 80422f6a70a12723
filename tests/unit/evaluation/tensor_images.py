"""A tensor of images as the data set that torch-fidelity reads."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset


class TensorImages(Dataset[Tensor]):
    """(N, 3, H, W) uint8."""

    def __init__(self, images_uint8: Tensor) -> None:
        self.images_uint8 = images_uint8

    def __len__(self) -> int:
        return len(self.images_uint8)

    def __getitem__(self, index: int) -> Tensor:
        return self.images_uint8[index]

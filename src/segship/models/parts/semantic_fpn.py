"""The semantic head over a feature pyramid (Kirillov et al. 2019, "Panoptic Feature Pyramid Networks").

Parameter names are those of detectron2 ``SemSegFPNHead``: ``p2.0``, ``p4.2``, ``.norm``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segship.models.parts.layers import ConvNorm, Upsample2, group_norm


class SemanticFPN(nn.Module):
    """P2 ... P5 to their sum (n, channels, h / 4, w / 4): each level is convolved and doubled until it has P2's size.

    Officially each level is doubled to the end, then all are added; the last doubling is the same linear map for all, so it
    follows the sum of the coarser levels, once instead of three times.
    Needs levels whose sizes are exact halves: the network input must be a multiple of 32.
    """

    def __init__(self, c_in: int, channels: int) -> None:
        super().__init__()
        for level in (2, 3, 4, 5):
            steps: list[nn.Module] = []
            for step in range(max(1, level - 2)):
                steps.append(ConvNorm(c_in if step == 0 else channels, channels, 3, norm=group_norm, relu=True))
                if step < level - 3:
                    steps.append(Upsample2())
            self.add_module(f"p{level}", nn.Sequential(*steps))
        self.upsample = Upsample2()

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        coarse: Tensor = self.get_submodule("p3")(levels[1])
        for level in (4, 5):
            coarse = coarse + self.get_submodule(f"p{level}")(levels[level - 2])
        fine: Tensor = self.get_submodule("p2")(levels[0])
        total: Tensor = fine + self.upsample(coarse)
        return total

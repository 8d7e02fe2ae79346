"""UNet as in milesial/Pytorch-UNet (https://github.com/milesial/Pytorch-UNet, revision 21d7850).

The module's parameter names are the official checkpoint's own. Any number of classes, any channel widths,
transposed-convolution and bilinear decoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from segship.core.errors import BadArgument, BadCheckpoint
from segship.core.spec import (
    Assumption,
    CheckpointRef,
    ImageInput,
    ModelSpec,
    Normalise,
    ScaleResize,
    SemanticDecode,
    TensorSpec,
)
from segship.models.checkpoint import Checkpoint, Tensors
from segship.models.family import classes_or_assumed
from segship.models.keys import has_all

NAME = "unet"

MaskValue = int | tuple[int, int, int]


class Facts(msgspec.Struct, frozen=True):
    """What the file does not hold. ``scale``: resize factor of the image before the network."""

    scale: float | None = None
    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    mask_values: tuple[MaskValue, ...] | None = None
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None


class DoubleConv(nn.Module):
    """(3x3 convolution without bias, BatchNorm, ReLU) twice: (n, c_in, h, w) to (n, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int, c_mid: int | None = None) -> None:
        super().__init__()
        c_mid = c_mid or c_out
        self.double_conv = nn.Sequential(
            nn.Conv2d(c_in, c_mid, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(c_mid, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.double_conv(x)
        return y


class Down(nn.Module):
    """2x2 max pooling (odd sizes are cut off), then :class:`DoubleConv`."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(c_in, c_out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.maxpool_conv(x)
        return y


class Up(nn.Module):
    """Upsample by 2, zero-pad to the skip connection's size, concatenate [skip, upsampled], :class:`DoubleConv`."""

    def __init__(self, c_in: int, c_skip: int, c_out: int, *, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(c_skip + c_in, c_out, (c_skip + c_in) // 2)
        else:
            self.up = nn.ConvTranspose2d(c_in, c_in // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(c_skip + c_in // 2, c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = _pad_to(self.up(x), skip)
        y: Tensor = self.conv(torch.cat([skip, x], dim=1))
        return y


def _pad_to(x: Tensor, skip: Tensor) -> Tensor:
    dy, dx = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
    if isinstance(dy, int) and isinstance(dx, int) and dy == 0 and dx == 0:  # symbolic while exporting with free sizes
        return x
    return functional.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])


class UNet(nn.Module):
    """(n, n_channels, h, w) float32 to logits (n, n_classes, h, w).

    ``widths``: channels of ``inc`` and of the four ``down`` blocks, as they are in the checkpoint.
    """

    def __init__(self, n_channels: int, n_classes: int, widths: Sequence[int], *, bilinear: bool) -> None:
        super().__init__()
        w0, w1, w2, w3, w4 = widths
        halves = 2 if bilinear else 1  # without weights in `up`, the convolutions halve the channels instead
        self.inc = DoubleConv(n_channels, w0)
        self.down1, self.down2, self.down3, self.down4 = Down(w0, w1), Down(w1, w2), Down(w2, w3), Down(w3, w4)
        self.up1 = Up(w4, w3, w3 // halves, bilinear=bilinear)
        self.up2 = Up(w3 // halves, w2, w2 // halves, bilinear=bilinear)
        self.up3 = Up(w2 // halves, w1, w1 // halves, bilinear=bilinear)
        self.up4 = Up(w1 // halves, w0, w0, bilinear=bilinear)
        self.outc = _OutConv(w0, n_classes)

    def forward(self, image: Tensor) -> Tensor:
        x1 = self.inc(image)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x5 = self.down4(x4)
        x = self.up1(x5, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        logits: Tensor = self.outc(x)
        return logits


class _OutConv(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def claims(checkpoint: Checkpoint) -> bool:
    """Whether the keys are milesial/Pytorch-UNet's."""
    return has_all(
        checkpoint.tensors,
        "inc.double_conv.0.weight",
        "down4.maxpool_conv.1.double_conv.3.weight",
        "up4.conv.double_conv.3.weight",
        "outc.conv.weight",
    )


def build(hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network without weights."""
    return UNet(**hyperparameters)


def read(checkpoint: Checkpoint, facts: Facts) -> tuple[ModelSpec, Tensors]:
    """Spec and tensors of a milesial/Pytorch-UNet checkpoint."""
    assumed: list[Assumption] = []
    n_classes, n_channels = checkpoint.shape("outc.conv.weight", 4)[0], checkpoint.shape("inc.double_conv.0.weight", 4)[1]
    if n_channels not in (1, 3):
        raise BadCheckpoint(f"{checkpoint.path} takes {n_channels} input channels; segship feeds grey (1) or RGB (3) images")
    bilinear = "up1.up.weight" not in checkpoint.tensors
    down = [f"down{level}.maxpool_conv.1.double_conv.3.weight" for level in (1, 2, 3, 4)]
    widths = [checkpoint.shape(key, 4)[0] for key in ("inc.double_conv.3.weight", *down)]
    spec = ModelSpec(
        family=NAME,
        variant=f"unet-{'bilinear' if bilinear else 'transposed'}-{widths[0]}-c{n_classes}",
        task="semantic",
        hyperparameters={"n_channels": n_channels, "n_classes": n_classes, "widths": widths, "bilinear": bilinear},
        image=ImageInput(
            channels="rgb" if n_channels == 3 else "gray",
            resize=ScaleResize(_scale(facts, assumed), "pil_bicubic"),
            normalise=Normalise(scale=1 / 255, scale_only_above_one=True),
            exif_orientation=False,  # data_loading.py, load_image: PIL.Image.open
            smallest=2 ** len(down),  # MaxPool2d(2) of a map one pixel wide leaves nothing
        ),
        outputs=(TensorSpec("logits", "float32", ("batch", n_classes, "height", "width")),),
        decode=SemanticDecode(
            resize_to=("image",),
            threshold=_threshold(facts, n_classes, assumed),
            pixel_values=_mask_values(checkpoint, facts, n_classes),
        ),
        slide=None,
        classes=classes_or_assumed(facts.classes, max(n_classes, 2), assumed),
        colors=facts.colors,
        checkpoint=CheckpointRef(checkpoint.path.name, checkpoint.sha256, f"milesial {checkpoint.layout}"),
        assumed=tuple(assumed),
    )
    return spec, checkpoint.tensors


def _scale(facts: Facts, assumed: list[Assumption]) -> float:
    if facts.scale is not None:
        if not 0 < facts.scale <= 8:
            raise BadArgument(f"scale is {facts.scale}; give a factor above 0, at most 8")
        return facts.scale
    assumed.append(Assumption("scale", "0.5", "milesial/Pytorch-UNet predict.py, default of --scale"))
    return 0.5


def _threshold(facts: Facts, n_classes: int, assumed: list[Assumption]) -> float | None:
    if n_classes > 1:  # predict.py: argmax for more than one class, sigmoid and threshold for one
        return None
    if facts.threshold is None:
        assumed.append(Assumption("threshold", "0.5", "milesial/Pytorch-UNet predict.py, default of --mask-threshold"))
    return 0.5 if facts.threshold is None else facts.threshold


def _mask_values(checkpoint: Checkpoint, facts: Facts, n_classes: int) -> tuple[MaskValue, ...] | None:
    stated = facts.mask_values if facts.mask_values is not None else checkpoint.extras.get("mask_values")
    if stated is None:
        return None
    try:
        values = msgspec.convert(stated, tuple[int | tuple[int, int, int], ...])
    except msgspec.ValidationError as error:
        raise BadCheckpoint(f"mask_values in {checkpoint.path} are not pixel values or RGB triples: {error}") from error
    grey, colours = (value for value in values if isinstance(value, int)), [value for value in values if isinstance(value, tuple)]
    fits = len(colours) in (0, len(values)) and all(0 <= each <= 255 for colour in colours for each in colour)
    if not fits or any(not 0 <= value <= 65535 for value in grey):
        raise BadCheckpoint(f"mask_values {values} in {checkpoint.path} cannot be written to a picture: state mask_values")
    if len(values) != max(n_classes, 2):
        raise BadCheckpoint(f"{checkpoint.path} has {len(values)} mask_values for {max(n_classes, 2)} classes: state mask_values")
    return values

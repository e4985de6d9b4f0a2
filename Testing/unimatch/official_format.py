"""Files in the formats of UniMatch v2 and of DINOv2 with random weights, and a plain forward pass over such tensors.

Written from the formats' names and shapes alone, without the library's classes: the oracle for loading weights.
"""

import math

import torch
import torch.nn.functional as F

HIDDEN, HEADS, DEPTH, FEATURES, CHANNELS = 24, 3, 4, 8, (4, 6, 8, 10)
PATCH, GRID, TAPS = 4, 5, (0, 1, 2, 3)
CONFIGURATION = {
    "hidden": HIDDEN,
    "layers": DEPTH,
    "heads": HEADS,
    "taps": TAPS,
    "features": FEATURES,
    "channels": CHANNELS,
    "patch": PATCH,
    "grid": GRID,
}


def dinov2_state(seed: int = 0) -> dict[str, torch.Tensor]:
    shapes = {
        "cls_token": (1, 1, HIDDEN),
        "pos_embed": (1, 1 + GRID * GRID, HIDDEN),
        "mask_token": (1, HIDDEN),
        "patch_embed.proj.weight": (HIDDEN, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (HIDDEN,),
        "norm.weight": (HIDDEN,),
        "norm.bias": (HIDDEN,),
    }
    for number in range(DEPTH):
        block = f"blocks.{number}."
        shapes |= {
            block + "norm1.weight": (HIDDEN,),
            block + "norm1.bias": (HIDDEN,),
            block + "attn.qkv.weight": (3 * HIDDEN, HIDDEN),
            block + "attn.qkv.bias": (3 * HIDDEN,),
            block + "attn.proj.weight": (HIDDEN, HIDDEN),
            block + "attn.proj.bias": (HIDDEN,),
            block + "ls1.gamma": (HIDDEN,),
            block + "norm2.weight": (HIDDEN,),
            block + "norm2.bias": (HIDDEN,),
            block + "mlp.fc1.weight": (4 * HIDDEN, HIDDEN),
            block + "mlp.fc1.bias": (4 * HIDDEN,),
            block + "mlp.fc2.weight": (HIDDEN, 4 * HIDDEN),
            block + "mlp.fc2.bias": (HIDDEN,),
            block + "ls2.gamma": (HIDDEN,),
        }
    return _random(shapes, seed)


def unimatch_state(classes: int, seed: int = 0) -> dict[str, torch.Tensor]:
    shapes = {}
    for level, width in enumerate(CHANNELS):
        shapes[f"projects.{level}.weight"], shapes[f"projects.{level}.bias"] = (width, HIDDEN, 1, 1), (width,)
        shapes[f"scratch.layer{level + 1}_rn.weight"] = (FEATURES, width, 3, 3)
        for unit in ("resConfUnit1", "resConfUnit2"):
            for conv in ("conv1", "conv2"):
                name = f"scratch.refinenet{level + 1}.{unit}.{conv}"
                shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (FEATURES, FEATURES, 3, 3), (FEATURES,)
        name = f"scratch.refinenet{level + 1}.out_conv"
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (FEATURES, FEATURES, 1, 1), (FEATURES,)
    for index, (level, size) in {0: (0, 4), 1: (1, 2), 3: (3, 3)}.items():
        width = CHANNELS[level]
        shapes[f"resize_layers.{index}.weight"] = (width, width, size, size)
        shapes[f"resize_layers.{index}.bias"] = (width,)
    shapes["scratch.output_conv.0.weight"] = (FEATURES, FEATURES, 3, 3)
    shapes["scratch.output_conv.0.bias"] = (FEATURES,)
    shapes["scratch.output_conv.2.weight"], shapes["scratch.output_conv.2.bias"] = (classes, FEATURES, 1, 1), (classes,)
    head = _random(shapes, seed + 1)
    backbone = dinov2_state(seed)
    return {f"backbone.{k}": v for k, v in backbone.items()} | {f"head.{k}": v for k, v in head.items()}


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:]) if len(shape) > 1 else 1
        state[name] = torch.randn(shape, generator=generator) * (0.7 / math.sqrt(fan) if len(shape) > 1 else 0.3)
        if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")):
            state[name] += 1
    return state


def plain_levels(state: dict[str, torch.Tensor], images: torch.Tensor) -> list[torch.Tensor]:
    """DINOv2's normalised patch tokens after each tapped block, from a state dict in Meta's names."""
    rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH)
    x = x.reshape(*x.shape[:2], -1).transpose(1, 2)
    x = torch.cat([state["cls_token"].repeat(len(images), 1, 1), x], dim=1)
    position = state["pos_embed"]
    if (rows, columns) != (GRID, GRID):
        square = position[:, 1:].reshape(1, GRID, GRID, HIDDEN).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / math.sqrt(GRID * GRID), (columns + 0.1) / math.sqrt(GRID * GRID))
        square = F.interpolate(square, scale_factor=factors, mode="bicubic", antialias=False)
        assert square.shape[-2:] == (rows, columns)
        position = torch.cat([position[:, :1], square.permute(0, 2, 3, 1).reshape(1, -1, HIDDEN)], dim=1)
    x = x + position
    levels = []
    for number in range(DEPTH):
        s = {k.removeprefix(f"blocks.{number}."): v for k, v in state.items() if k.startswith(f"blocks.{number}.")}
        y = F.layer_norm(x, (HIDDEN,), s["norm1.weight"], s["norm1.bias"], 1e-6)
        qkv = (y @ s["attn.qkv.weight"].T + s["attn.qkv.bias"]).reshape(*y.shape[:2], 3, HEADS, HIDDEN // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(HIDDEN // HEADS)).softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(x.shape) @ s["attn.proj.weight"].T + s["attn.proj.bias"]
        x = x + y * s["ls1.gamma"]
        y = F.layer_norm(x, (HIDDEN,), s["norm2.weight"], s["norm2.bias"], 1e-6)
        y = F.gelu(y @ s["mlp.fc1.weight"].T + s["mlp.fc1.bias"]) @ s["mlp.fc2.weight"].T + s["mlp.fc2.bias"]
        x = x + y * s["ls2.gamma"]
        if number in TAPS:
            levels.append(F.layer_norm(x, (HIDDEN,), state["norm.weight"], state["norm.bias"], 1e-6)[:, 1:])
    return levels


def plain_logits(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The DPT segmentation of UniMatch v2, from a state dict in its names, interpolating before each projection."""
    backbone = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    s = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
    rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH

    def conv(x, name, **options):
        return F.conv2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"), **options)

    def unit(x, name):
        return conv(conv(x.relu(), f"{name}.conv1", padding=1).relu(), f"{name}.conv2", padding=1) + x

    maps = []
    for level, tokens in enumerate(plain_levels(backbone, images)):
        x = tokens.transpose(1, 2).reshape(len(images), HIDDEN, rows, columns)
        x = conv(x, f"projects.{level}")
        if level < 2:
            weight, bias = s[f"resize_layers.{level}.weight"], s[f"resize_layers.{level}.bias"]
            x = F.conv_transpose2d(x, weight, bias, stride=(4, 2)[level])
        elif level == 3:
            x = conv(x, "resize_layers.3", stride=2, padding=1)
        maps.append(conv(x, f"scratch.layer{level + 1}_rn", padding=1))
    path = None
    for level in (3, 2, 1, 0):
        name = f"scratch.refinenet{level + 1}"
        path = maps[level] if path is None else path + unit(maps[level], f"{name}.resConfUnit1")
        path = unit(path, f"{name}.resConfUnit2")
        size = maps[level - 1].shape[-2:] if level else [2 * side for side in path.shape[-2:]]
        path = conv(F.interpolate(path, size, mode="bilinear", align_corners=True), f"{name}.out_conv")
    x = conv(conv(path, "scratch.output_conv.0", padding=1).relu(), "scratch.output_conv.2")
    return F.interpolate(x, (rows * PATCH, columns * PATCH), mode="bilinear", align_corners=True)

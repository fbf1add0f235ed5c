"""Names in the released checkpoints: of tensors, and of the categories behind their numbers."""

from __future__ import annotations

from functools import cache

LEVELS, BLOCKS = 3, 2
EMBEDDING = "category_embedding.weight"
NORM_GROUPS = 32

# Released name of each part of a residual block.
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

# The numbers that the released data loaders give to the categories: rows of the embedding.
CLASS_ORDERS = {
    "mvtec": (
        "capsule",
        "bottle",
        "grid",
        "leather",
        "metal_nut",
        "tile",
        "transistor",
        "zipper",
        "cable",
        "carpet",
        "hazelnut",
        "pill",
        "screw",
        "toothbrush",
        "wood",
    ),
    "visa": (
        "candle",
        "cashew",
        "fryum",
        "macaroni2",
        "pcb2",
        "pcb4",
        "capsules",
        "chewinggum",
        "macaroni1",
        "pcb1",
        "pcb3",
        "pipe_fryum",
    ),
}


def released_name(name: str) -> str:
    """The released (LDM) name of one of :class:`DeCoDiffUNet`'s tensors.

    The map is one to one. Inside a transformer the names are the same.

    Args:
        name: A key of the network's ``state_dict``.

    Raises:
        KeyError: The network has no such tensor.
    """
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = _released_modules().get(".".join(parts[:length]))
        if module:
            return ".".join([module, *parts[length:]])
    raise KeyError(name)


@cache
def _released_modules() -> dict[str, str]:
    modules = {
        "category_embedding": "cond_stage_model.embedding",
        "unet.time_embedding.linear_1": "time_embed.0",
        "unet.time_embedding.linear_2": "time_embed.2",
        "unet.conv_in": "input_blocks.0.0",
        "unet.conv_norm_out": "out.0",
        "unet.conv_out": "out.2",
        "unet.mid_block.attentions.0": "middle_block.1",
        **_residual("unet.mid_block.resnets.0", "middle_block.0"),
        **_residual("unet.mid_block.resnets.1", "middle_block.2"),
    }
    for level in range(LEVELS):
        down, up = f"unet.down_blocks.{level}", f"unet.up_blocks.{level}"
        after = (BLOCKS + 1) * (level + 1)
        modules[f"{down}.downsamplers.0.conv"] = f"input_blocks.{after}.0.op"
        modules[f"{up}.upsamplers.0.conv"] = f"output_blocks.{after - 1}.2.conv"
        for block in range(BLOCKS):
            released = f"input_blocks.{1 + (BLOCKS + 1) * level + block}"
            modules |= _residual(f"{down}.resnets.{block}", f"{released}.0")
            modules[f"{down}.attentions.{block}"] = f"{released}.1"
        for block in range(BLOCKS + 1):
            released = f"output_blocks.{(BLOCKS + 1) * level + block}"
            modules |= _residual(f"{up}.resnets.{block}", f"{released}.0")
            modules[f"{up}.attentions.{block}"] = f"{released}.1"
    return modules


def _residual(ours: str, released: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{released}.{name}" for part, name in RESIDUAL.items()}

"""Weights to start from: taken whole, each tensor accounted for, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from benchmarks.released_network import ReleasedUNet
from safetensors.torch import save_file

from decodiff_pipeline.deco.initialise import load_initial_weights
from decodiff_pipeline.deco.released_network import EMBEDDING, released_name
from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = {"base_channels": 32, "num_heads": 2, "context_dim": 32}
LDM = "model.diffusion_model."
ROWS = "cond_stage_model.embedding.weight"


def network(*categories: str) -> DeCoDiffUNet:
    torch.manual_seed(1)
    return DeCoDiffUNet(categories=list(categories), **TINY)


def same_network(unet: DeCoDiffUNet, released: dict[str, torch.Tensor]) -> bool:
    state = unet.state_dict()
    return all(
        torch.equal(state[name], released[released_name(name)])
        for name in state
        if name != EMBEDDING
    )


@pytest.fixture(scope="module")
def released() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ReleasedUNet(15, **TINY).state_dict()


def latent_diffusion(released: dict[str, torch.Tensor], classes: int) -> dict[str, torch.Tensor]:
    tensors = {LDM + name: tensor for name, tensor in released.items() if name != ROWS}
    return {
        **tensors,
        ROWS: torch.randn(classes, 32),
        "first_stage_model.decoder.conv_in.weight": torch.zeros(2, 2),
        "betas": torch.zeros(1000),
    }


def test_a_released_checkpoint_gives_categories_by_name(
    released: dict[str, torch.Tensor], save_released: Callable[..., Path], tmp_path: Path
) -> None:
    unet = network("wood", "marble", "capsule")
    before = unet.category_embedding.weight.detach().clone()
    result = load_initial_weights(unet, save_released(tmp_path / "last.pt", released))
    after = unet.category_embedding.weight
    assert same_network(unet, released)
    assert torch.equal(after[[0, 2]], released[ROWS][[14, 0]])
    assert torch.equal(after[1], before[1])
    assert result.untouched == (f"{EMBEDDING}[marble]",)
    assert {f"{ROWS}[wood]", f"{ROWS}[capsule]", "out.2.bias"} <= set(result.used)
    assert f"{ROWS}[bottle]" in result.unused


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_latent_diffusion_checkpoint_gives_all_but_its_classes(
    suffix: str, released: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path, tensors = tmp_path / f"imagenet{suffix}", latent_diffusion(released, 1001)
    if suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 7}, path)
    else:
        save_file(tensors, path)
    unet = network("a", "b")
    before = unet.category_embedding.weight.detach().clone()
    result = load_initial_weights(unet, path)
    assert same_network(unet, released)
    assert torch.equal(unet.category_embedding.weight, before)
    assert result.untouched == (EMBEDDING,)
    assert set(result.unused) == {ROWS, "betas", "first_stage_model.decoder.conv_in.weight"}
    assert set(result.used) == {name for name in tensors if name.startswith(LDM)}
    assert len(result.sha256) == 64


def test_a_saved_model_of_ours_is_taken_by_category(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = DeCoDiffUNet(categories=["b", "c"], **TINY)
    trained.save_pretrained(tmp_path / "model" / "unet")
    unet = network("a", "b")
    result = load_initial_weights(unet, tmp_path / "model")
    assert torch.equal(unet.category_embedding.weight[1], trained.category_embedding.weight[0])
    assert torch.equal(unet.unet.conv_in.weight, trained.unet.conv_in.weight)
    assert result.untouched == (f"{EMBEDDING}[a]",)
    assert result.unused == (f"{EMBEDDING}[c]",)


def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_taken(
    released: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tensors = latent_diffusion(released, 1001)
    del tensors[f"{LDM}out.2.bias"]
    torch.save({"state_dict": tensors}, tmp_path / "imagenet.ckpt")
    unet = network("a")
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    with pytest.raises(ModelError, match=r"1 missing: model\.diffusion_model\.out\.2\.bias"):
        load_initial_weights(unet, tmp_path / "imagenet.ckpt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


def test_sizes_that_no_shape_shows_are_compared(tmp_path: Path) -> None:
    other = DeCoDiffUNet(categories=["a"], **{**TINY, "num_heads": 4})
    other.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="num_heads=4, but this one has 2"):
        load_initial_weights(network("a"), tmp_path)


def test_the_unit_of_the_latents_is_that_of_the_weights(tmp_path: Path) -> None:
    theirs = {"latent_mean": [0.5, 0.0, -1.0, 2.0], "latent_std": [0.4, 0.5, 0.3, 2.5]}
    DeCoDiffUNet(categories=["a"], **TINY, **theirs).save_pretrained(tmp_path)
    unet = network("a", "b")
    unet.register_to_config(latent_mean=[0.0] * 4, latent_std=[1.0] * 4)
    load_initial_weights(unet, tmp_path)
    assert {name: unet.config[name] for name in theirs} == theirs
    with pytest.raises(ModelError, match="standardise_latents to true"):
        load_initial_weights(network("a"), tmp_path)


@pytest.mark.parametrize("name", ["nowhere.pt", "."])
def test_a_source_without_weights_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_initial_weights(network("a"), tmp_path / name)

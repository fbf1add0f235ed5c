"""Released checkpoints become folders of ours, and back; what does not fit is refused whole."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from benchmarks.released_network import ReleasedUNet
from safetensors.torch import save_file

from decodiff_pipeline.deco.convert import convert, convert_back, main
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.released_checkpoint import read_released, resolve_categories
from decodiff_pipeline.deco.released_network import released_name
from decodiff_pipeline.deco.unet import PRESETS, DeCoDiffUNet, build_unet
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ["ash", "birch", "cedar"]
TINY = {"base_channels": 32, "num_heads": 2, "context_dim": 32}


@pytest.fixture(scope="module")
def released() -> ReleasedUNet:
    torch.manual_seed(0)
    return ReleasedUNet(len(NAMES), **TINY).eval()


@pytest.fixture
def checkpoint(released: ReleasedUNet, save_released: Callable[..., Path], tmp_path: Path) -> Path:
    return save_released(tmp_path / "last.pt", released.state_dict(), num_heads=2)


@pytest.mark.parametrize("preset", ["XS", "S", "M", "L", "XL"])
def test_the_names_map_one_to_one_for_every_size(preset: str) -> None:
    size = PRESETS[preset]
    with torch.device("meta"):
        ours = build_unet(preset, [str(i) for i in range(15)], 32, 4, dropout=0.4).state_dict()
        theirs = ReleasedUNet(15, size.base_channels, size.num_heads, size.context_dim)
    shapes = {released_name(name): tensor.shape for name, tensor in ours.items()}
    assert len(shapes) == len(ours)
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}


@torch.no_grad()
def test_a_converted_network_is_the_same_function(
    released: ReleasedUNet, checkpoint: Path, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "out", categories=NAMES)
    unet = DeCoDiffUNet.from_pretrained(tmp_path / "out" / "unet")
    sample, steps, ids = torch.randn(3, 4, 16, 16), torch.tensor([0, 4, 9]), torch.arange(3)
    expected = released(sample, steps, ids)
    torch.testing.assert_close(unet(sample, steps, ids), expected, rtol=0, atol=1e-5)
    assert unet.categories == tuple(NAMES)


def test_there_and_back_gives_the_same_tensors(
    released: ReleasedUNet, checkpoint: Path, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "out", categories=NAMES)
    convert_back(tmp_path / "out", tmp_path / "back.pt")
    back = read_released(tmp_path / "back.pt")
    assert set(back.tensors) == set(released.state_dict())
    assert all(torch.equal(back.tensors[n], t) for n, t in released.state_dict().items())
    assert resolve_categories(back).names == tuple(NAMES)
    convert(tmp_path / "back.pt", tmp_path / "again")  # names and heads come with the file
    saved = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "again" / saved).read_bytes() == (tmp_path / "out" / saved).read_bytes()


def test_with_an_autoencoder_the_folder_is_a_whole_model(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "out", categories=NAMES, autoencoder=AutoencoderConfig())
    model = DeCoDiffPipeline.from_pretrained(tmp_path / "out")
    assert (model.preprocessing.resize, model.image_size) == (288, 256)
    assert (model.config.num_inference_steps, model.categories) == (5, tuple(NAMES))
    assert (model.discrepancy.pixel_limit, model.discrepancy.latent_limit) == (0.4, 0.2)


def test_the_checkpoint_s_own_geometry_is_kept(
    released: ReleasedUNet, save_released: Callable[..., Path], tmp_path: Path
) -> None:
    args = {"num_heads": 2, "image_size": 448, "center_size": 256, "center_crop": False}
    file = save_released(tmp_path / "last.pt", released.state_dict(), **args)
    convert(file, tmp_path / "out", categories=NAMES, autoencoder=AutoencoderConfig())
    model = DeCoDiffPipeline.from_pretrained(tmp_path / "out")
    assert (model.preprocessing.resize, model.image_size) == (448, 448)
    assert model.unet.config.sample_size == 56


@pytest.mark.parametrize(
    ("rows", "args", "first", "last"),
    [
        (15, {}, "capsule", "wood"),
        (12, {}, "candle", "pipe_fryum"),
        (15, {"dataset": "visa"}, "candle", "unused_14"),
        (15, {"dataset": "mvtec"}, "capsule", "wood"),
    ],
)
def test_known_category_orders(
    rows: int,
    args: dict[str, Any],
    first: str,
    last: str,
    save_released: Callable[..., Path],
    tmp_path: Path,
) -> None:
    model = ReleasedUNet(rows, **TINY).state_dict()
    names = resolve_categories(
        read_released(save_released(tmp_path / "last.pt", model, **args))
    ).names
    assert (names[0], names[-1], len(names)) == (first, last, rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"its 3 categories.*--categories"),
        ({"dataset": "mvtec"}, r"has 3 categories, but 15"),
        ({"categories": ["a", "b"]}, r"has 3 categories, but 2"),
        ({"categories": ["a", "b", "b"]}, r"2 distinct"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        convert(checkpoint, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": NAMES}, r"32 channels and context 32.*--heads"),
        ({"categories": NAMES, "num_heads": 7}, "num_heads=7 does not work"),
        ({"num_heads": 2}, r"nothing in .* names its"),
    ],
)
def test_what_the_file_does_not_tell_is_asked_for(
    options: dict[str, Any],
    message: str,
    released: ReleasedUNet,
    save_released: Callable[..., Path],
    tmp_path: Path,
) -> None:
    file = save_released(tmp_path / "last.pt", released.state_dict(), dataset=["a", "list"])
    with pytest.raises(ConfigurationError, match=message):
        convert(file, tmp_path / "out", **options)


def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(
    released: ReleasedUNet, save_released: Callable[..., Path], tmp_path: Path
) -> None:
    model = dict(released.state_dict())
    del model["out.2.bias"]
    model["extra.weight"] = torch.zeros(1)
    model["time_embed.0.bias"] = torch.zeros(7)
    model["input_blocks.0.0.bias"] = torch.full((32,), float("nan"))
    file = save_released(tmp_path / "last.pt", model, num_heads=2)
    with pytest.raises(ModelError, match="does not hold") as caught:
        convert(file, tmp_path / "out", categories=NAMES)
    for part in (
        "1 missing: out.2.bias",
        "1 unknown: extra.weight",
        "1 of another shape: time_embed.0.bias (7,) instead of (128,)",
        "1 not finite numbers: input_blocks.0.0.bias",
    ):
        assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


class Harmful:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": {}, "args": Harmful(tmp_path / "ran")}, tmp_path / "last.pt")
    with pytest.raises(ModelError, match=r"posix\.mkdir, which is refused.*safetensors"):
        convert(tmp_path / "last.pt", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


DAMAGES = ["truncated", "a byte", "text", "empty", "missing", "folder", "no model"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_files_end_in_one_sentence(
    damage: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.pt"
    if damage == "folder":
        path.mkdir()
    elif damage == "no model":
        torch.save({"weights": {}}, path)
    elif damage != "missing":
        whole = checkpoint.read_bytes()
        middle = len(whole) // 2
        other = bytes([whole[middle] ^ 1])
        content = {
            "truncated": whole[:-500],
            "a byte": whole[:middle] + other + whole[middle + 1 :],
            "text": b"hello",
            "empty": b"",
        }
        path.write_bytes(content[damage])
    with pytest.raises(SystemExit) as caught:
        main([str(path), str(tmp_path / "out")])
    assert str(caught.value).startswith(f"error: {path} ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_old_file_format_is_read_too(released: ReleasedUNet, tmp_path: Path) -> None:
    content = {"model": released.state_dict(), "args": argparse.Namespace(num_heads=2)}
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert len(read_released(tmp_path / "old.pt").tensors) == len(released.state_dict())


def test_nothing_is_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    taken = tmp_path / "out"
    taken.mkdir()
    (taken / "kept").write_text("good")
    for turn in (convert, convert_back):
        with pytest.raises(ModelError, match="exists already"):
            turn(checkpoint, taken)
    assert [path.name for path in taken.iterdir()] == ["kept"]


def test_networks_that_the_released_code_cannot_hold_are_refused(tmp_path: Path) -> None:
    build_unet("nano", ["a"], 8, 4, dropout=0.0).save_pretrained(tmp_path / "nano")
    standardised = DeCoDiffUNet(categories=["a"], **TINY, latent_mean=[0.0] * 4)
    standardised.save_pretrained(tmp_path / "standardised")
    for name, message in {"nano": "norm_groups=8", "standardised": "standardised"}.items():
        with pytest.raises(ModelError, match=message):
            convert_back(tmp_path / name, tmp_path / "last.pt")
    assert not (tmp_path / "last.pt").exists()


def test_a_folder_with_a_tensor_missing_is_not_filled_up(tmp_path: Path) -> None:
    unet = DeCoDiffUNet(categories=["a"], **TINY)
    unet.save_pretrained(tmp_path / "unet")
    state = unet.state_dict()
    del state["unet.conv_in.bias"]
    save_file(state, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelError, match=r"1 missing: unet\.conv_in\.bias"):
        convert_back(tmp_path, tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_heads", 0), ("base_channels", "many"), ("sample_size", None), ("categories", 5)],
)
def test_a_damaged_configuration_is_named(key: str, value: object, tmp_path: Path) -> None:
    DeCoDiffUNet(categories=["a"], **TINY).save_pretrained(tmp_path / "unet")
    file = tmp_path / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(ModelError, match=r"config\.json does not describe a DeCoDiffUNet"):
        convert_back(tmp_path, tmp_path / "last.pt")

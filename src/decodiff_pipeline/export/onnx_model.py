"""Computes a saved model's network and autoencoder with ONNX Runtime instead of torch."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from decodiff_pipeline.deco.digests import file_sha256, folder_sha256
from decodiff_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

RECORD = "onnx.json"
FORMAT = 1
Part = Literal["network", "encoder", "decoder"]
PARTS: tuple[Part, ...] = ("network", "encoder", "decoder")


def require_packages(*names: str) -> None:
    """Check that packages of the extra ``onnx`` are installed.

    Raises:
        ConfigurationError: A package is missing.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"not installed, but needed for ONNX: {', '.join(missing)}; "
            "pip install 'decodiff-pipeline[onnx]'"
        )


def read_record(folder: Path) -> dict[str, Any]:
    """Read ``onnx.json`` of an export.

    Raises:
        ModelError: The file is missing, damaged or of another format version.
    """
    path = folder / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']!r}, not {FORMAT}")
        if missing := {f"{part}.onnx" for part in PARTS} - set(record["files"]):
            raise ValueError(f"it lists no {', '.join(sorted(missing))}")
        record["source_sha256"][:1], dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read ({error}); {_cure(folder)}") from error
    return record


def check_export(folder: Path, source_sha256: str) -> None:
    """Check an export against the `folder_sha256` of its model, before anything is loaded.

    Raises:
        ConfigurationError: ONNX Runtime is not installed.
        ModelError: The export is missing, damaged, or of another model.
    """
    require_packages("onnxruntime")
    record = read_record(folder)
    if record["source_sha256"] != source_sha256:
        raise ModelError(
            f"{folder} was exported from another model (SHA-256 "
            f"{record['source_sha256'][:12]}…, not {source_sha256[:12]}…); {_cure(folder)}"
        )
    for name, sha256 in record["files"].items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != sha256:
            raise ModelError(f"{path} is missing or was changed since its export; {_cure(folder)}")


def use_onnx(pipeline: DeCoDiffPipeline, folder: Path, source: Path) -> None:
    """Compute a pipeline's network and autoencoder with ONNX Runtime on the CPU.

    Only their forward passes are replaced; categories, statistics and saving do not change.

    Args:
        folder: The export.
        source: The folder that the pipeline was loaded from.

    Raises:
        ConfigurationError: ONNX Runtime is not installed, or the model computes in bfloat16.
        ModelError: The export is missing, damaged, or of another model.
    """
    check_export(folder, folder_sha256(source))
    refuse_bfloat16(pipeline, source)
    attach(pipeline, folder)


def refuse_bfloat16(pipeline: DeCoDiffPipeline, source: Path) -> None:
    """Refuse a bfloat16 model, because a float32 export would give other scores.

    Raises:
        ConfigurationError: The model computes in bfloat16.
    """
    if pipeline.config.bfloat16:
        raise ConfigurationError(
            f"the model in {source} computes in bfloat16 but ONNX would in float32; use the "
            "backend torch, or evaluate it again with scoring.bfloat16=false"
        )


def attach(
    pipeline: DeCoDiffPipeline,
    folder: Path,
    session: Callable[[Path, Part], Callable[..., torch.Tensor]] | None = None,
) -> None:
    """:func:`use_onnx` without its checks; ``session`` replaces :class:`Session`."""
    network, encoder, decoder = ((session or Session)(folder, part) for part in PARTS)
    pipeline.to("cpu")
    has_posterior = isinstance(pipeline.vae, AutoencoderKL)

    def predict(
        sample: torch.Tensor, timestep: torch.Tensor | int, category_ids: torch.Tensor
    ) -> torch.Tensor:
        times = torch.as_tensor(timestep, dtype=torch.int64).expand(len(sample))
        return network(sample, times, category_ids)

    def encode(images: torch.Tensor) -> AutoencoderKLOutput | AutoencoderTinyOutput:
        latents = encoder(images)
        if has_posterior:
            return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(latents))
        return AutoencoderTinyOutput(latents=latents)

    def decode(latents: torch.Tensor) -> DecoderOutput:
        return DecoderOutput(sample=decoder(latents))

    # Set on the instances, as accelerate's hooks do: a wrapper would have to copy all attributes.
    pipeline.unet.forward = predict
    pipeline.vae.encode, pipeline.vae.decode = encode, decode


class Session:
    """One exported part as a function of tensors.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Spinning threads would occupy the CPU while they wait.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._path = folder / f"{part}.onnx"
        try:
            self._session = onnxruntime.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no public base class of its errors
            raise ModelError(
                f"ONNX Runtime cannot load {self._path} ({error}); {_cure(folder)}"
            ) from error
        self._shapes = {i.name: tuple(i.shape[1:]) for i in self._session.get_inputs()}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the part on inputs in the order of the export, each (batch, …).

        Raises:
            ModelError: An input has another shape than at export.
        """
        feeds: dict[str, np.ndarray] = {}
        for (name, shape), tensor in zip(self._shapes.items(), inputs, strict=True):
            if tuple(tensor.shape[1:]) != shape:
                raise ModelError(
                    f"{self._path} was exported for {name} of shape (batch, "
                    f"{', '.join(map(str, shape))}), not {tuple(tensor.shape)}; export a model of "
                    "that size, or use the backend torch"
                )
            feeds[name] = np.ascontiguousarray(tensor.detach().numpy())
        return torch.from_numpy(self._session.run(None, feeds)[0])


def _cure(folder: Path) -> str:
    return (
        "export the model again: python -m decodiff_pipeline.export.onnx_export "
        f"--model MODEL --to {folder}"
    )

"""A saved model's network and autoencoder, computed by ONNX Runtime instead of torch."""

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
    """Name the missing ones of the extra ``onnx``.

    Raises:
        ConfigurationError: One is not installed.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"not installed, but needed for ONNX: {', '.join(missing)}; "
            "pip install 'decodiff-pipeline[onnx]'"
        )


def read_record(folder: Path) -> dict[str, Any]:
    """``onnx.json`` of an export.

    Raises:
        ModelError: There is none, or it is damaged or of another format.
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
    """Refuse an export that cannot stand for a model, before anything is loaded.

    Args:
        folder: As :func:`~.onnx_export.export` wrote it.
        source_sha256: The model's, as `deco.digests.folder_sha256` gives it.

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
    """Let ONNX Runtime compute a pipeline's network and autoencoder, on the CPU.

    Only what they compute is replaced, so categories, statistics and saving stay as they were.

    Args:
        pipeline: As loaded from ``source``.
        folder: As :func:`~.onnx_export.export` wrote it.
        source: The saved model.

    Raises:
        ConfigurationError: ONNX Runtime is not installed, or the model computes in bfloat16.
        ModelError: The export is missing, damaged, or of another model.
    """
    check_export(folder, folder_sha256(source))
    refuse_bfloat16(pipeline, source)
    attach(pipeline, folder)


def refuse_bfloat16(pipeline: DeCoDiffPipeline, source: Path) -> None:
    """An export is float32; a model evaluated in bfloat16 would score otherwise with it.

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
    """:func:`use_onnx` without its checks; ``session`` makes something else of a part."""
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

    # On the instances, as accelerate's hooks do: a wrapper would have to imitate whole modules.
    pipeline.unet.forward = predict
    pipeline.vae.encode, pipeline.vae.decode = encode, decode


class Session:
    """One exported part, as a function of tensors.

    Args:
        folder: Where the parts lie.
        part: Which one.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """

    def __init__(self, folder: Path, part: Part) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait by spinning take the processor from whatever else is running.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._path = folder / f"{part}.onnx"
        try:
            self._session = onnxruntime.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes, of which there is no public base
            raise ModelError(
                f"ONNX Runtime cannot load {self._path} ({error}); {_cure(folder)}"
            ) from error
        self._shapes = {i.name: tuple(i.shape[1:]) for i in self._session.get_inputs()}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute.

        Args:
            inputs: In the order of the export, each with the batch as its first dimension.

        Raises:
            ModelError: One has not the shape that the part was exported for.
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

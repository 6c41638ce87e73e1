"""transformers as the oracle: the same checkpoint in fp32 and in fp64, eager attention, on the CPU.

The fp32 model is transformers as it is, with every parameter cast to fp32 by hand (from_pretrained
leaves norms and embedding in bf16). The fp64 model is the same with all parameters in double, and
with the places patched that would fall back to fp32: RMSNorm, softmax and the activation quantizer.
RoPE's angles stay those of fp32, since they define the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM
from transformers.integrations import bitnet

PROJECTIONS = (bitnet.AutoBitLinear, bitnet.BitLinear)


class Oracle:
    """One checkpoint in one precision.

    Args:
        folder: A Hugging Face checkpoint.
        dtype: ``torch.float32`` or ``torch.float64``.
        model: In fp32 with eager attention; None: what transformers makes of the checkpoint.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, model: Any = None) -> None:
        self.dtype = dtype
        self.model = (
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager"
            )
            if model is None
            else model
        ).eval()
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            if tensor.is_floating_point() and not _is_angle(tensor, self.model):
                tensor.data = tensor.data.to(dtype)
        for module in self.model.modules():
            if isinstance(module, bitnet.BitLinear):
                module.dtype = dtype
            if type(module).__name__.endswith("RMSNorm"):
                self.double(module)

    def double(self, norm: torch.nn.Module) -> None:
        """Let an RMSNorm compute in double where the oracle does."""
        if self.dtype == torch.float64:
            norm.forward = _norm_in_double(norm)

    @torch.no_grad()
    def logits(self, token_ids: list[int]) -> NDArray[np.floating[Any]]:
        """Logits of every position of one sequence, ``(T, vocab_size)``, fp32 or fp64."""
        with _quantize_and_softmax_in(self.dtype):
            out = self.model(torch.tensor([token_ids]), use_cache=False).logits[0]
        result: NDArray[np.floating[Any]] = out.numpy()
        return result

    @torch.no_grad()
    def hidden(self, token_ids: list[int]) -> NDArray[np.floating[Any]]:
        """Hidden states of one sequence after the final norm, ``(T, hidden_size)``."""
        with _quantize_and_softmax_in(self.dtype):
            out = self.model.model(torch.tensor([token_ids]), use_cache=False)
        result: NDArray[np.floating[Any]] = out.last_hidden_state[0].numpy()
        return result

    @torch.no_grad()
    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """``count`` greedy token ids after ``prompt``, with transformers' own KV cache."""
        ids, cache, step = [], None, torch.tensor([prompt])
        with _quantize_and_softmax_in(self.dtype):
            for _ in range(count):
                out = self.model(step, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                ids.append(int(out.logits[0, -1].argmax()))
                step = torch.tensor([ids[-1:]])
        return ids

    @torch.no_grad()
    def record(self, token_ids: list[int]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Run one sequence; the input and output rows of each norm and projection by name."""
        seen: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_: object, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
                seen[name] = (
                    args[0].reshape(-1, args[0].shape[-1]).numpy().copy(),
                    out.reshape(-1, out.shape[-1]).numpy().copy(),
                )

            return hook

        hooks = [
            module.register_forward_hook(keep(name))
            for name, module in self.model.named_modules()
            if isinstance(module, (*PROJECTIONS, torch.nn.Linear))
            or type(module).__name__.endswith(("RMSNorm", "BitLinear"))
        ]
        self.logits(token_ids)
        for hook in hooks:
            hook.remove()
        return seen


def _is_angle(tensor: torch.Tensor, model: torch.nn.Module) -> bool:
    return any(
        tensor is buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")
    )


def _norm_in_double(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    gemma = type(module).__name__ == "Gemma3RMSNorm"
    eps = module.eps if gemma else module.variance_epsilon

    def forward(x: torch.Tensor) -> torch.Tensor:
        inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return (1 + module.weight if gemma else module.weight) * (x * inverse)

    return forward


@contextmanager
def _quantize_and_softmax_in(dtype: torch.dtype) -> Iterator[None]:
    """In double, run the activation quantizer and softmax in double too; in fp32 change nothing."""
    if dtype == torch.float32:
        yield
        return
    softmax, quantize = torch.nn.functional.softmax, bitnet.ActQuant.apply

    def softmax_in_double(x: torch.Tensor, dim: int, dtype: object = None) -> torch.Tensor:
        return softmax(x, dim=dim)

    def quantize_in_double(x: torch.Tensor) -> torch.Tensor:
        scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
        return (x * scale).round().clamp(-128, 127) / scale

    torch.nn.functional.softmax = softmax_in_double
    bitnet.ActQuant.apply = quantize_in_double
    try:
        yield
    finally:
        torch.nn.functional.softmax = softmax
        bitnet.ActQuant.apply = quantize

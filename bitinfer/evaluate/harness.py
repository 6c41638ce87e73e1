"""Adapter for lm-evaluation-harness: the model "bitinfer" beside its own "hf" (extra ``eval``).

It makes the same requests of the same text as the harness's class for transformers does, so that
figures can be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from bitinfer.evaluate.perplexity import opening_id, windows
from bitinfer.evaluate.scoring import Span, score
from bitinfer.model import Model
from bitinfer.progress import progress_bar

_MOST_NEW_TOKENS = 256  # where a task sets no limit, as the harness's own classes have it


@register_model("bitinfer")
class BitinferLM(TemplateLM):  # type: ignore[misc]  # of no type where the harness is not installed
    """A bitinfer model as lm-evaluation-harness asks for it.

    Args:
        pretrained: Path or name of the model.
        batch_size, max_batch_size, device: The harness gives these to every model; batches are
            made by their tokens here.
        **loading: Options of `Model.load`.
    """

    def __init__(
        self,
        pretrained: str = "tales-14m",
        *,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
        **loading: Any,
    ) -> None:
        super().__init__()
        self.model = Model.load(pretrained, **loading)
        self.tokenizer = self.model.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps rendered requests under."""
        return self.model.path.name

    @property
    def max_length(self) -> int:
        """Most tokens that the model reads at once."""
        return self.model.context_length

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokenizer.eos_token_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        return opening_id(self.tokenizer)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Token ids; control tokens in the text count, for chat templates are rendered to text."""
        opened = add_special_tokens is not False
        return self.tokenizer.encode(string, add_special_tokens=opened, parse_special=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy decoding gives it) of each continuation."""
        spans = []
        for _, context, continuation in requests:
            ids = [*context, *continuation][-(self.max_length + 1) :]
            spans.append(Span(ids, max(1, len(ids) - len(continuation))))
        with progress_bar("scoring", " tokens", not disable_tqdm) as show:
            scores = score(self.model.engine, spans, show)
        found = [(one.logprob, one.greedy) for one in scores]
        for (asked, *_), answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", asked, answer)
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts, in windows of the context that do not overlap."""
        size = self.max_length
        texts = [[self.prefix_token_id, *self.tok_encode(r.args[0])] for r in requests]
        spans = [list(windows(ids, size, size)) for ids in texts]
        with progress_bar("reading", " tokens", not disable_tqdm) as show:
            scores = iter(score(self.model.engine, [s for text in spans for s in text], show))
        found = [sum(next(scores).logprob for _ in text) for text in spans]
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue each prompt up to one of its stop texts."""
        found = []
        with progress_bar("generating", " prompts", not disable_tqdm) as show:
            for request in requests:
                found.append(self._generate(*request.args))
                self.cache_hook.add_partial("generate_until", request.args, found[-1])
                show(len(found), len(requests))
        return found

    def _generate(self, prompt: str, options: Mapping[str, Any]) -> str:
        asked = dict(normalize_gen_kwargs(dict(options), _MOST_NEW_TOKENS))
        asked.pop("do_sample")  # a temperature of 0 says the same
        stop = handle_stop_sequences(asked.pop("until"), eos=self.tokenizer.eos_token)
        most = min(asked.pop("max_gen_toks"), self.max_length - 1)
        ids = self.tok_encode(prompt)[-(self.max_length - most) :]
        temperature = asked.pop("temperature", 0.0)
        stop = [text for text in stop if text]
        done = self.model.generate(
            ids, max_tokens=most, temperature=temperature, stop=stop, **asked
        )
        text: str = postprocess_generated_text(done.text, stop, think_end_token=None)
        return text

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text.

        Raises:
            ValueError: the model has no chat template.
        """
        if self.model.chat_template is None:
            raise ValueError(f"chat template: none in {self.model.path}")
        tokenizer = self.tokenizer
        rendered = self.model.chat_template.render(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            variables={"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token},
        )
        return rendered.text

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Source of the model's template, which the harness notes beside results."""
        template = self.model.chat_template
        return template.source if chat_template and template is not None else ""


def main(arguments: Sequence[str]) -> None:
    """Run the command ``lm_eval`` of these arguments with this model."""
    from lm_eval.__main__ import cli_evaluate

    named = {"--model", "-M"} & set(arguments) or any(a.startswith("--model=") for a in arguments)
    runs = bool(arguments) and arguments[0] not in ("ls", "validate") and "--help" not in arguments
    sys.argv = ["lm_eval", *arguments, *(["--model", "bitinfer"] if runs and not named else [])]
    cli_evaluate()

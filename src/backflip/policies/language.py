"""A language-model policy: any causal or encoder–decoder LM of transformers, its tokenizer, and what RL needs of them.

Legend: B rows, Q query columns, T response columns, V vocabulary, S bytes for V bits, D hidden size.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backflip.errors import DataError, ModelError
from backflip.maths.bits import unpacked
from backflip.maths.kernels import head_logps
from backflip.maths.tensors import token_entropy, token_logps
from backflip.policies import attention, ragged, varlen
from backflip.policies.hub import from_pretrained, quiet
from backflip.policies.llama import LlamaForward
from backflip.policies.recompute import wake
from backflip.policies.seq2seq import form_of
from backflip.policies.tokens import PositionIds, TokenBatch
from backflip.records import Prompt


@dataclass(frozen=True)
class Scores:
    """What a policy thinks of given responses: log-probabilities and, where asked for, entropies of the next-token
    distributions, both (B, T) in nats, and the last hidden states (B, T, D) of the positions that chose each token."""

    logps_BT: Tensor
    entropy_BT: Tensor | None = None
    hidden_BTD: Tensor | None = None


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is when its precision is higher."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


FORBIDDEN = -1e9
"""The logit of a token that could not be drawn: its probability is 0, and its product with 0 is too."""


def _restrict(logits: Tensor, bits: Tensor | None) -> Tensor:
    """Logits (..., V) with those tokens out that `bits` (..., S) do not allow."""
    return logits if bits is None else logits.masked_fill(~unpacked(bits, logits.shape[-1]), FORBIDDEN)


def _entropy(logits: Tensor, temperature: float, *, gradient: bool) -> Tensor:
    return token_entropy(logits if gradient else logits.detach(), temperature=temperature)


@contextlib.contextmanager
def training_mode(model: nn.Module, on: bool, *, seed: int) -> Iterator[None]:
    """Training mode (dropout active) inside the block when `on`; evaluation mode after it either way.

    Dropout draws from PyTorch's global generator, the only way it can: inside the block that generator starts from
    `seed`, so that the masks are those of this update whatever was drawn before; after it the generator is as it was.
    """
    model.train(on)
    device = next(model.parameters()).device
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=on):
            if on:
                torch.manual_seed(seed)
            yield
    finally:
        model.eval()


class LanguagePolicy:
    """π(token | prompt, tokens so far).

    `name` is how the arena and the store call it; `form` is how its model reads query and response; a `bare` policy scores as
    the model without its adapter would. Raises ModelError when the tokenizer has no end-of-text token, for without one no
    completion can ever be finished.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str = "policy", bare: bool = False) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of {name!r} has no end-of-text token, so no completion could ever finish; "
                "set `eos_token` in its tokenizer_config.json"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.form = form_of(model, name)
        self.bare = bare
        self.model.eval()
        attention.adopt(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def fill_id(self) -> int:
        """What stands in padded places; masks hide it, so any id that has an embedding would do."""
        own = self.tokenizer.pad_token_id
        return int(own) if own is not None and own < self.embeddings else self.eos_id

    @property
    def embeddings(self) -> int:
        """How many tokens the model has an embedding for."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def context(self) -> int:
        """Longest prompt plus completion the model can read, in tokens."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if limit is not None else 1 << 30

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states."""
        return int(self.model.config.hidden_size)

    def encode(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt. An empty prompt is one end-of-text token: a model needs something to start from."""
        return self._known(self.form.encode(self.tokenizer, prompt)) or [self.eos_id]

    def encode_completion(self, text: str, *, eos: bool = True) -> list[int]:
        """Ids of a completion, followed by the end-of-text token."""
        ids = self._known(self.form.encode_completion(self.tokenizer, text))
        return ids + [self.eos_id] * eos

    def _known(self, ids: list[int]) -> list[int]:
        beyond = next((i for i in ids if i >= self.embeddings), None)
        if beyond is not None:
            token = self.tokenizer.convert_ids_to_tokens(beyond)
            raise DataError(f"a text holds {token!r}, a token that {self.name!r} has no embedding for; take it out")
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of a completion, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def score(
        self,
        batch: TokenBatch,
        *,
        temperature: float = 1.0,
        position_ids: PositionIds = "mask",
        entropy: bool = False,
        entropy_gradient: bool = False,
        hidden: bool = False,
        allowed_BTS: Tensor | None = None,
    ) -> Scores:
        """log π(response | query) token by token, under the distribution sampled at `temperature`, and where only some tokens
        could be drawn among those `allowed_BTS` names, eight to a byte (`backflip.maths.bits`).

        Differentiable in the weights, the entropy where `entropy_gradient` asks for it. Values under a zero mask are
        meaningless.
        """
        with self.model.disable_adapter() if self.bare else contextlib.nullcontext():
            return self._score(
                batch, temperature, position_ids, allowed_BTS, entropy=entropy, entropy_gradient=entropy_gradient, hidden=hidden
            )

    def _score(
        self, batch: TokenBatch, temperature: float, position_ids: PositionIds, allowed_BTS: Tensor | None, *, entropy: bool,
        entropy_gradient: bool, hidden: bool,
    ) -> Scores:  # fmt: skip
        if position_ids == "mask" and ragged.fits(self.model) and bool(batch.query_mask_BQ.any(1).all()):
            return self._score_line(
                batch, temperature, allowed_BTS, entropy=entropy, entropy_gradient=entropy_gradient, hidden=hidden
            )
        wake(self.model)
        reading = self.form.read(self.model, batch, position_ids=position_ids, hidden=hidden)
        logits_BTV = _restrict(at_least_float32(reading.logits_BTV), allowed_BTS)
        return Scores(
            logps_BT=token_logps(logits_BTV, batch.response_BT, temperature=temperature),
            entropy_BT=_entropy(logits_BTV, temperature, gradient=entropy_gradient) if entropy or entropy_gradient else None,
            hidden_BTD=None if reading.hidden_BTD is None else at_least_float32(reading.hidden_BTD),
        )

    def _score_line(
        self, batch: TokenBatch, temperature: float, allowed_BTS: Tensor | None, *, entropy: bool, entropy_gradient: bool,
        hidden: bool,
    ) -> Scores:  # fmt: skip
        """The same by our own forward pass, which reads no padding and no shared prompt twice."""
        forward = LlamaForward.ambient(self.model)
        line, wanted_W = ragged.line_of_batch(batch, self.device)
        place = batch.mask_BT.bool()
        tokens_W = batch.response_BT[place]
        entropy = entropy or entropy_gradient
        hidden_WE = ragged.read(forward, line, wanted_W)
        plain = type(forward.head_module) is nn.Linear and forward.head_module.bias is None and allowed_BTS is None
        if plain and forward.head_module.weight.dtype not in varlen.HALF:
            with torch.autocast(self.device.type, enabled=False):  # the kernel knows which products to round
                logps_W, entropy_W = head_logps(
                    hidden_WE, forward.head_module.weight, tokens_W, temperature=temperature, entropy=entropy,
                    dtype=forward.dtype,
                )  # fmt: skip
            entropy_W = entropy_W if entropy_gradient or entropy_W is None else entropy_W.detach()
        else:
            allowed_WS = None if allowed_BTS is None else allowed_BTS[place]
            logits_WV = _restrict(at_least_float32(forward.head_module(hidden_WE)), allowed_WS)
            logps_W = token_logps(logits_WV, tokens_W, temperature=temperature)
            entropy_W = _entropy(logits_WV, temperature, gradient=entropy_gradient) if entropy else None

        def laid(values: Tensor) -> Tensor:
            where = place if values.dim() == 1 else place.unsqueeze(-1)
            return values.new_zeros(*place.shape, *values.shape[1:]).masked_scatter(where, values)

        return Scores(
            logps_BT=laid(logps_W),
            entropy_BT=None if entropy_W is None else laid(entropy_W),
            hidden_BTD=laid(at_least_float32(hidden_WE)) if hidden else None,
        )

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and trainable parameters, in a fixed order."""
        return ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)

    @property
    def is_adapted(self) -> bool:
        """Whether a LoRA adapter is trained rather than the model itself."""
        return hasattr(self.model, "peft_config")

    def frozen_copy(self, name: str = "reference") -> LanguagePolicy:
        """A copy that nothing will change."""
        twin = LanguagePolicy(copy.deepcopy(self.model), self.tokenizer, name=name)
        twin.model.requires_grad_(False)
        return twin

    def reference(self) -> LanguagePolicy:
        """What the policy is now, to stay so while it is trained: a copy, or with an adapter that has not learned anything yet
        the very same model with the adapter switched off while it is asked."""
        fresh = self.is_adapted and not any(bool(p.any()) for n, p in self.model.named_parameters() if "lora_B" in n)
        return LanguagePolicy(self.model, self.tokenizer, name="reference", bare=True) if fresh else self.frozen_copy()

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder (safetensors) that plain transformers loads.

        A LoRA adapter is written as a PEFT adapter folder; `merged` makes an ordinary model of it.
        """
        with quiet():
            self.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))

    def restore(self, folder: str | Path) -> None:
        """Take up the weights that `save` wrote."""
        if self.is_adapted:
            from peft import set_peft_model_state_dict
            from safetensors.torch import load_file

            set_peft_model_state_dict(self.model, load_file(Path(folder) / "adapter_model.safetensors"))
        else:
            self.model.load_state_dict(from_pretrained(self.form.auto_class, folder).state_dict())

    def merged(self) -> LanguagePolicy:
        """The same policy as one ordinary model: a LoRA adapter is added into a copy of the weights."""
        if not self.is_adapted:
            return self
        return LanguagePolicy(copy.deepcopy(self.model).merge_and_unload(), self.tokenizer, name=self.name)

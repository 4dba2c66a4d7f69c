"""A reward model: a language model with one number at the end.

Legend: B rows, L tokens.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from backflip.errors import ModelError
from backflip.policies import attention, ragged
from backflip.policies.hub import check_vocabulary, from_pretrained, load_tokenizer, pick_device, quiet
from backflip.policies.language import LanguagePolicy, at_least_float32
from backflip.policies.llama import LlamaForward
from backflip.policies.recompute import wake
from backflip.policies.tokens import TokenBatch, pad, positions
from backflip.policies.transfer import send
from backflip.records import Prompt
from backflip.rewards.reading import LastToken, ScoreAt, WholeText, reading_of
from backflip.seeds import Seeds

PAD_TOKEN = "<|pad|>"


class RewardModel:
    """r(prompt, completion) = gain · head(h_last) + bias (Ziegler et al. 2019).

    A `RewardFunction`: call it with prompts and completions. `model` is an ordinary sequence-classification model of
    transformers with one label: a decoder, reading prompt ⊕ completion (⊕ end-of-text) on the right-most real token, or an
    encoder, reading the two as a pair (see `reading`).
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, gain: float = 1.0, bias: float = 0.0, score_at: ScoreAt = "eos",
        max_length: int = 512, batch_size: int = 64,
    ) -> None:  # fmt: skip
        self.model = model
        self.tokenizer = tokenizer
        self.gain = nn.Parameter(torch.tensor(float(gain), device=next(model.parameters()).device))
        self.bias = float(bias)
        self.score_at: ScoreAt = score_at
        self.max_length = max_length
        self.batch_size = batch_size
        self.reading = reading_of(model, "the model")
        self.model.eval()
        attention.adopt(self.model)

    @classmethod
    def from_policy(
        cls, policy: LanguagePolicy, *, seeds: Seeds, head_init: Literal["normal", "zero"] = "normal",
        score_at: ScoreAt = "eos", max_length: int = 512,
    ) -> RewardModel:  # fmt: skip
        """A reward model whose body is a copy of the policy's and whose head is fresh.

        The head is N(0, 1/√(d+1)) without a bias (Ziegler et al. 2019; "N Implementation Details", detail 8), or zero. A
        tokenizer without a padding token of its own gets one, for the score is read at the last token that is not padding.
        """
        model, tokenizer = _classifier(policy)
        width = model.score.weight.shape[1]
        with torch.no_grad():
            if head_init == "normal":
                model.score.weight.normal_(0.0, (width + 1) ** -0.5, generator=seeds.torch("reward-head"))
            else:
                model.score.weight.zero_()
        return cls(model.to(policy.device), tokenizer, score_at=score_at, max_length=min(max_length, policy.context))

    @classmethod
    def from_encoder(cls, path: str | Path, *, seeds: Seeds, max_length: int = 512, device: str = "auto") -> RewardModel:
        """A reward model whose body is an encoder (BERT and its like) and whose head, N(0, 1/√(d+1)), is fresh.

        What the encoder's own classifier adds besides, such as a pooling layer, is drawn as transformers does it, from `seeds`.
        Raises ModelError.
        """
        tokenizer = load_tokenizer(path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.integer("reward-pooling"))
            model = from_pretrained("AutoModelForSequenceClassification", path, num_labels=1, new_head=True)
        check_vocabulary(model, tokenizer, path)
        head = reading_of(model, path).head(model)
        with torch.no_grad():
            head.weight.normal_(0.0, (head.weight.shape[1] + 1) ** -0.5, generator=seeds.torch("reward-head"))
            if head.bias is not None:
                head.bias.zero_()
        # Two places fewer than there are positions: RoBERTa and its kin count from two.
        context = (getattr(model.config, "max_position_embeddings", None) or max_length + 2) - 2
        return cls(model.to(pick_device(device)), tokenizer, max_length=min(max_length, context))

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Self:
        """Read what `save` wrote, or any one-label sequence classifier, decoder or encoder. Raises ModelError."""
        tokenizer = load_tokenizer(folder)
        model = from_pretrained("AutoModelForSequenceClassification", folder)
        if model.config.num_labels != 1:
            raise ModelError(f"{folder} is not a reward model: it has {model.config.num_labels} labels, a reward model has one")
        check_vocabulary(model, tokenizer, folder)
        if isinstance(reading_of(model, folder), LastToken) and tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of {folder} has no end-of-text token to read the score at; "
                "set `eos_token` in its tokenizer_config.json"
            )
        extra = getattr(model.config, "backflip", None) or {}
        return cls(model.to(pick_device(device)), tokenizer, **extra)

    @classmethod
    def copy_of(cls, other: RewardModel) -> RewardModel:
        """A reward model of its own weights that starts equal to `other`."""
        twin = cls(copy.deepcopy(other.model), other.tokenizer, gain=other.gain.item(), bias=other.bias)
        twin.score_at, twin.max_length = other.score_at, other.max_length
        return twin

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that `AutoModelForSequenceClassification` loads."""
        self.model.config.backflip = {
            "gain": self.gain.item(),
            "bias": self.bias,
            "score_at": self.score_at,
            "max_length": self.max_length,
        }
        with quiet():
            self.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))

    @torch.no_grad()
    def restore(self, folder: str | Path) -> None:
        """Take up the weights that `save` wrote."""
        saved = RewardModel.load(folder, device="cpu")
        self.model.load_state_dict(saved.model.state_dict())
        self.gain.copy_(saved.gain)
        self.bias = saved.bias

    @torch.no_grad()
    def fold(self) -> None:
        """Move the gain into the head, so that plain transformers gives the same score up to the constant `bias`."""
        head = self.reading.head(self.model)
        head.weight.mul_(self.gain)
        if head.bias is not None:
            head.bias.mul_(self.gain)
        self.gain.fill_(1.0)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and trainable parameters, in a fixed order, the gain last."""
        yield from self.model.named_parameters()
        yield "gain", self.gain

    def encode(self, prompt: Prompt, completion: str) -> list[int]:
        """Ids of prompt ⊕ completion (⊕ end-of-text), at most `max_length`: what is too much goes from the prompt's start."""
        return self.reading.encode(self.tokenizer, prompt, completion, self.score_at, self.max_length)

    def scores(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Scores of encoded rows, (B,), differentiable."""
        if isinstance(self.reading, WholeText):
            return self._scaled(self.reading.scores(self.model, self.tokenizer, rows, self.device))
        if ragged.fits(self.model):
            line = ragged.line_of(rows, self.device)
            ends = send(torch.tensor([len(row) for row in rows]).cumsum(0) - 1, self.device)
            return self._read_off(ragged.read(LlamaForward.ambient(self.model), line, ends))
        fill = self.tokenizer.pad_token_id or 0  # a classifier of other makers may have none; the mask hides it
        ids_BL, mask_BL = (send(t, self.device) for t in pad(rows, fill=int(fill), left=False))
        last_B = mask_BL.sum(1) - 1
        return self.token_scores(ids_BL, mask_BL).gather(1, last_B.unsqueeze(1)).squeeze(1)

    def token_scores(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """The head's output at every position, (B, L), differentiable: what a value function initialised from the
        reward model starts as. Raises ModelError for an encoder, which reads a text as a whole."""
        if isinstance(self.reading, WholeText):
            raise ModelError(f"{type(self.model).__name__} reads a text as a whole and has no score at each token; use a decoder")
        wake(self.model)
        hidden_BLD = self.model.base_model(
            input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions(mask_BL), use_cache=False
        ).last_hidden_state
        return self._read_off(hidden_BLD)

    def values(self, batch: TokenBatch) -> Tensor:
        """The head's output at the positions that chose each response token, (B, T), differentiable; meaningless under a zero
        mask."""
        place_BT = batch.mask_BT.bool()
        if ragged.fits(self.model) and bool(batch.query_mask_BQ.any(1).all()):
            line, wanted_W = ragged.line_of_batch(batch, self.device)
            values_W = self._read_off(ragged.read(LlamaForward.ambient(self.model), line, wanted_W))
            return values_W.new_zeros(place_BT.shape).masked_scatter(place_BT, values_W)
        return self.token_scores(batch.ids_BL, batch.attention_BL)[:, -place_BT.shape[1] - 1 : -1]

    def _read_off(self, hidden: Tensor) -> Tensor:
        return self._scaled(at_least_float32(self.model.score(hidden).squeeze(-1)))

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.gain.to(self.device) * raw + self.bias

    @torch.no_grad()
    def hidden(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        """The body's last hidden state where the score is read (an encoder: on its first token), (B, D), float32, on the CPU."""
        rows = [self.encode(p, c) for p, c in zip(prompts, completions, strict=True)]
        found = []
        for start in range(0, len(rows), self.batch_size):
            fill = int(self.tokenizer.pad_token_id or 0)
            ids_BL, mask_BL = (send(t, self.device) for t in pad(rows[start : start + self.batch_size], fill=fill, left=False))
            states_BLD = self.model.base_model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
            place_B = mask_BL.sum(1) - 1 if isinstance(self.reading, LastToken) else torch.zeros_like(mask_BL[:, 0])
            found.append(states_BLD[torch.arange(len(place_B)), place_B].float().cpu())
        return torch.cat(found)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @torch.no_grad()
    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """Scores of completions, in order."""
        records = [p if isinstance(p, Prompt) else Prompt(p) for p in prompts]
        rows = [self.encode(p, c) for p, c in zip(records, completions, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length share a batch: less padding
        scores = [0.0] * len(rows)
        for start in range(0, len(rows), self.batch_size):
            part = order[start : start + self.batch_size]
            for i, value in zip(part, self.scores([rows[i] for i in part]).tolist(), strict=True):
                scores[i] = value
        return scores

    @torch.no_grad()
    def normalize(self, scores: Sequence[float], *, mean: float = 0.0, std: float = 1.0) -> None:
        """Change gain and bias so that what scored `scores` now has this mean and standard deviation.

        g = σ_target/σ, b = μ_target − g·μ ("N Implementation Details", detail 9). Scores that do not vary only shift.
        """
        now = torch.tensor(list(scores), dtype=torch.float64)
        spread = float(now.std(unbiased=False))
        scale = std / spread if spread > 1e-8 else 1.0
        self.gain.mul_(scale)
        self.bias = scale * self.bias + mean - scale * float(now.mean())

    def shift(self, scores: Sequence[float], *, mean: float = 0.0) -> None:
        """Change the bias so that what scored `scores` now, such as demonstrations, has this mean (InstructGPT, section 3.5)."""
        self.bias += mean - sum(scores) / len(scores)


def _classifier(policy: LanguagePolicy) -> tuple[Any, Any]:
    """A one-label classifier with a copy of the policy's body, and a tokenizer that can pad."""
    with tempfile.TemporaryDirectory() as folder:
        source = policy.merged()
        source.save(folder)
        tokenizer = copy.deepcopy(source.tokenizer)
        # Only the body is taken from the folder: the head transformers draws for it is replaced by ours.
        with torch.random.fork_rng(devices=[]):
            model = from_pretrained("AutoModelForSequenceClassification", folder, num_labels=1, new_head=True)
    if not hasattr(model, "score"):
        raise ModelError(f"{type(model).__name__} has no reward head that backflip knows; use a decoder-only model")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            model.get_input_embeddings().weight[rows:] = 0  # never trained, so nothing random may stand there
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.float(), tokenizer

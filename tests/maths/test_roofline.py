"""What a job must cost: by hand, against the operations PyTorch counts, and how it must behave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from backflip.maths.roofline import Group, Shape, Work, generation, grpo_step, learning, reading

SMALL = Shape(vocabulary=10, hidden=4, feed_forward=6, layers=2, heads=2, kv_heads=1, head_size=2)
LARGER = Shape(vocabulary=512, hidden=128, feed_forward=256, layers=3, heads=4, kv_heads=2, head_size=32)
groups = st.lists(
    st.builds(Group, st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=3
)


def llama(shape: Shape) -> Any:
    """A transformers model of that shape."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size, tie_word_embeddings=True, attn_implementation="eager",
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def counted(work: Any) -> int:
    """The operations PyTorch counts while `work` runs."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def test_a_small_model_by_hand() -> None:
    # Keys and values 2·4·1·2 = 16, layer 2·4·4 + 16 + 3·4·6 = 120, head 40, a query and its key 4·2·2 = 16.
    assert (SMALL.keys_and_values, SMALL.layer, SMALL.head, SMALL.weights, SMALL.pair) == (16, 120, 40, 280, 16)
    # A prompt of 3 and completions of 2 and 1: 3 + 1 tokens are read and see 6 + 4 keys; the prompt's last and the one read of
    # a completion choose tokens, and see 3 + 4.
    # First layer 2·4·120 + 16·10 = 1120; last 2·4·16 + 2·2·104 + 16·7 = 656; head 2·2·40 = 160.
    assert reading(SMALL, [Group(3, [2, 1])]) == Work(1936)
    assert learning(SMALL, [Group(3, [2, 1])]) == Work(3 * 1936)
    # The prompt: 2·3·120 + 16·6 + 2·3·16 + 2·104 + 16·3 + 2·40 = 1248; then one row sees 4 keys: 2·280 + 2·16·4 = 688.
    # All weights are read twice, 2 bytes each; 4 places of 2 layers · 2 · 1 · 2 numbers of 4 bytes once.
    written = generation(SMALL, [Group(3, [2, 1])], itemsize=2, kv_itemsize=4)
    assert written == Work(1248 + 688, 2 * 280 * 2 + 4 * 32)
    assert grpo_step(SMALL, [Group(3, [2, 1])], itemsize=2, kv_itemsize=4) == Work(5 * 1936, written.nbytes)
    assert Work(6e9, 4e9).seconds(gflops=2.0, read_gb_s=8.0) == pytest.approx(3.5)


def test_a_whole_forward_pass_as_pytorch_counts_it() -> None:
    # transformers computes every position's logits and, of attention, the keys after the query too.
    length = 24
    ids = torch.randint(2, LARGER.vocabulary, (1, length))
    model = llama(LARGER)
    attention = LARGER.layers * LARGER.pair * length**2
    assert counted(lambda: model(ids)) == 2 * length * LARGER.weights + attention


def test_our_own_passes_do_little_more_than_must_be_done() -> None:
    from backflip.policies.language import LanguagePolicy
    from backflip.policies.tokens import token_batch
    from backflip.rollout import generate
    from backflip.seeds import Seeds
    from backflip.settings import Sampling

    policy = LanguagePolicy(llama(LARGER), type("Tokenizer", (), {"eos_token_id": 1, "pad_token_id": 0, "decode": str})())
    lengths = [16, 16]
    prompts = [torch.randint(2, LARGER.vocabulary, (n,)).tolist() for n in lengths]
    rows = [prompt for prompt in prompts for _ in range(4)]
    batch = token_batch(rows, torch.randint(2, LARGER.vocabulary, (8, 33)).tolist(), fill=0)
    asked = [Group(n, [33] * 4) for n in lengths]
    least = reading(LARGER, asked).flops
    with torch.no_grad():
        assert least <= counted(lambda: policy.score(batch)) <= 1.1 * least
    assert 3 * least <= counted(lambda: policy.score(batch).logps_BT.sum().backward()) <= 3 * 1.1 * least
    settings = Sampling(max_new_tokens=33, ignore_eos=True, slots=8)
    least = generation(LARGER, asked, itemsize=4, kv_itemsize=4).flops
    assert least <= counted(lambda: generate(policy, rows, settings, seeds=Seeds(0))) <= 1.1 * least


@given(groups)
def test_writing_a_text_costs_what_reading_it_costs(asked: list[Group]) -> None:
    assert generation(SMALL, asked, itemsize=4, kv_itemsize=4).flops == reading(SMALL, asked).flops


@given(groups)
def test_groups_add_up_and_sharing_a_prompt_saves_reading_it(asked: list[Group]) -> None:
    assert reading(SMALL, asked).flops == sum(reading(SMALL, [group]).flops for group in asked)
    apart = [Group(group.prompt, [n]) for group in asked for n in group.responses]
    prompt_again = sum((len(g.responses) - 1) * reading(SMALL, [Group(g.prompt, [1])]).flops for g in asked)
    assert reading(SMALL, apart).flops == reading(SMALL, asked).flops + prompt_again

"""Makes tests/golden/golden.npz: greedy tokens and logits of transformers' LlamaForCausalLM on dummy weights.

    make test-torch        makes them again and compares
    PYTHONPATH=src:tests python tests/golden/make_golden.py [--check]

Of each model: a prompt of 33 tokens, 40 greedy tokens after it, and the logits each came from: of the small model
all, of the presets those of sampled ids, and all of the first token.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from engine_driver import GOLDEN, SMALL
from transformers import LlamaConfig, LlamaForCausalLM

from wattwork.engines import PRESETS
from wattwork.engines.weights import each_tensor, tensors

PROMPT, GENERATED, SAMPLED = 33, 40, 384
MARGIN = 1e-3  # between the two largest logits: twenty times what engines may differ, so that tokens must be equal


def rope_parameters(config):
    if (s := config.rope_scaling) is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "rope_type": "llama3",
        "rope_theta": config.rope_theta,
        "factor": float(s.factor),
        "low_freq_factor": float(s.low_freq_factor),
        "high_freq_factor": float(s.high_freq_factor),
        "original_max_position_embeddings": s.original_context,
    }


def llama(config, weights):
    """The model as transformers has it, with our weights."""
    c = config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab,
            hidden_size=c.hidden,
            intermediate_size=c.ffn,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            num_key_value_heads=c.kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.context,
            rms_norm_eps=c.norm_eps,
            rope_parameters=rope_parameters(c),
            tie_word_embeddings=c.tied,
            attn_implementation="eager",
        )
    )
    names, state = [t.name for t in tensors(c)], {}
    each_tensor(c, weights, lambda i, values: state.__setitem__(names[i], torch.from_numpy(values)))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if c.tied else [])
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def golden(config, seed):
    """prompt, tokens and the logits [GENERATED, V] they came from; teacher-forced in one pass at the end."""
    model = llama(config, f"dummy:{seed}")
    prompt = np.random.default_rng(seed).integers(0, config.vocab, PROMPT)
    ids = torch.from_numpy(prompt)[None]
    for _ in range(GENERATED):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    logits = model(ids[:, :-1]).logits[0, PROMPT - 1 :].numpy()
    tokens = ids[0, PROMPT:].numpy()
    assert (logits.argmax(-1) == tokens).all()
    top = np.sort(logits, axis=-1)
    margin = (top[:, -1] - top[:, -2]).min()
    assert margin > MARGIN, f"{config.name} with seed {seed}: margin {margin}; take another seed"
    return prompt, tokens, logits


def make(path):
    arrays = {}
    for config, seed in ((SMALL, 3), (PRESETS["tiny-15m"], 0), (PRESETS["smol-135m"], 0)):
        prompt, tokens, logits = golden(config, seed)
        rng = np.random.default_rng(seed + 1)
        few = config.vocab > 1000
        ids = np.sort(rng.choice(config.vocab, SAMPLED, replace=False)) if few else np.arange(config.vocab)
        arrays |= {
            f"{config.name}/seed": np.array(seed),
            f"{config.name}/prompt": prompt.astype(np.int32),
            f"{config.name}/tokens": tokens.astype(np.int32),
            f"{config.name}/ids": ids.astype(np.int32),
            f"{config.name}/logits": logits[:, ids],
            f"{config.name}/first": logits[0],
        }
        print(config.name, "tokens", len(set(tokens.tolist())), "distinct")
    np.savez_compressed(path, **arrays)


def check():
    """Makes everything again and holds it against the file: equal tokens, logits within 2e-5."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "golden.npz"
        make(made)
        with np.load(GOLDEN) as old, np.load(made) as new:
            assert sorted(old) == sorted(new)
            for name in old:
                difference = abs(old[name].astype(float) - new[name]).max()
                assert difference <= (2e-5 if old[name].dtype == np.float32 else 0), f"{name} differs by {difference}"
    print("the golden file holds")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    else:
        make(GOLDEN)

#!/usr/bin/env bash
# transformers 5.24.0 (torch 2.13.0): NllbMoe runs two of its experts, whatever the router says.
#
# A random NllbMoe with four experts a layer, and batches of random tokens, so that the router sends tokens to all of
# them. One would have guessed that changing the weights of any expert changes the logits. Experts 2 and 3 are of no
# effect, as with facebook/nllb-moe-54b all but 2 of 128 would be: the mask of the first choice, already one-hot, is one-hot encoded
# once more, so its zeros and ones are taken for the numbers of experts. In 4.57.6 all four count.
#
# Output seen (2026-11-30, Python 3.11, CPU):
#   expert 0: logits move by 0.453
#   expert 1: logits move by 0.527
#   expert 2: logits move by 0.000
#   expert 3: logits move by 0.000
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH PYTHONHOME PIP_CONSTRAINT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0

"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import NllbMoeConfig, NllbMoeForConditionalGeneration

torch.manual_seed(0)
heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2}
widths = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
config = NllbMoeConfig(vocab_size=64, num_experts=4, moe_eval_capacity_token_fraction=1.0, **heads, **layers, **widths)
model = NllbMoeForConditionalGeneration(config).eval()
source, target = torch.randint(4, 64, (4, 16)), torch.randint(4, 64, (4, 8))


@torch.no_grad()
def logits() -> torch.Tensor:
    return model(input_ids=source, decoder_input_ids=target).logits


def scale(expert: int, factor: float) -> int:
    weights = [weight for name, weight in model.named_parameters() if f".expert_{expert}." in name]
    for weight in weights:
        weight.data.mul_(factor)
    return len(weights)


before, moved = logits(), []
for expert in range(4):
    assert scale(expert, 50.0) == 8  # two layers, two matrices with a bias each
    moved.append(float((logits() - before).abs().max()))
    scale(expert, 1 / 50.0)
    print(f"expert {expert}: logits move by {moved[-1]:.3f}")
assert min(moved[:2]) > 1e-2, "the behaviour has changed"
assert max(moved[2:]) < 1e-5, "the behaviour has changed"
PYTHON

"""Mistakes to plant in vision encoders."""

from __future__ import annotations

TARGETS = ("ort-cpu", "portable")

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("vit_pooler", "activation: gelu}", "activation: gelu_tanh}", "ViT: tanh GELU for erf"),
    ("vit_pooler", r"\n  - layer_norm: \{weight: layernorm.weight\}", "", "ViT: no last norm"),
    ("vit_pooler", "activation: tanh, ", "activation: relu, ", "ViT: another activation in the pooler"),
    ("vit_classifier_rect", "norm_eps: 0.001", "norm_eps: 0.01", "ViT: ten times the epsilon"),
    ("vit_classifier_rect", "bias: true", "bias: false", "ViT: the classifier's bias dropped"),
    ("dinov2_gelu", r" *- \{layer_scale: .*layer_scale1.*\n", "", "DINOv2: the first layer scale dropped"),
    ("dinov2_gelu", r" *- \{layer_scale: .*layer_scale2.*\n", "", "DINOv2: the second layer scale dropped"),
    ("dinov2_gelu", "activation: gelu}", "activation: gelu_tanh}", "DINOv2: tanh GELU for erf, as the seed has it"),
    ("dinov2_gelu", "layer_scale1", "layer_scale2", "DINOv2: one layer scale for both"),
    ("dinov2_swiglu", r"packed_swiglu: \{", "packed_swiglu: {activation: gelu, ", "DINOv2: another gate"),
    ("dinov2_reg_gelu", "count: 4, after: 1", "count: 4", "DINOv2: registers in front of the class token"),
    ("dinov2_reg_swiglu", "        - residual_save\n(.*norm2.*)", r"\1\n        - residual_save", "DINOv2: post-norm"),
    ("dinov3_rope", r",\s+rope: rope", "", "DINOv3: no rope"),
    ("dinov3_rope", "theta: 100.0", "theta: 150.0", "DINOv3: another theta"),
    ("dinov3_rope", "style: centred", "style: grid", "DINOv3: EVA-02's rope"),
    ("dinov3_rope", "norm_eps: 1.0e-05", "norm_eps: 1.0e-3", "DINOv3: another epsilon"),
    ("dinov3_gated", "activation: silu", "activation: gelu", "DINOv3: another gate"),
    ("clip_vision", r"\n  - layer_norm: \{weight: pre_layrnorm.weight\}", "", "CLIP: no norm before the layers"),
    ("clip_vision", r"\n  - layer_norm: \{weight: post_layernorm.weight\}", "", "CLIP: no norm of the pooled row"),
    ("clip_vision", "activation: quick_gelu", "activation: gelu", "CLIP: another activation"),
    ("siglip_vision", r"\n  - layer_norm: \{weight: head.layernorm.weight\}", "", "SigLIP: no norm in the head"),
    ("siglip_vision", "gelu_tanh}\n  - residual", "gelu}\n  - residual", "SigLIP: erf GELU for tanh in the head"),
    ("nomic_vision_rope", r",\s+rope: rope", "", "Nomic Vision: no rope"),
    ("nomic_vision_rope", "style: grid", "style: centred", "Nomic Vision: DINOv3's rope"),
    ("nomic_vision_ref_shape", r"\s+reference_grid: \[3, 3\]", "", "Nomic Vision: the grid not stretched"),
    ("nomic_vision_norope", "eps: 1.0e-05", "eps: 1.0e-03", "Nomic Vision: the model's epsilon in the MLP"),
    ("nomic_vision_norope", "norm: true, eps: 1.0e-05", "norm: false", "Nomic Vision: no norm in the MLP"),
    ("nomic_vision_norope", "activation: silu", "activation: gelu", "Nomic Vision: another gate"),
]  # fmt: skip

"""What each operator of ATen is to hardware, and the kinds of operator that stand for it.

`cosearch.workload.OperatorKind` has eight kinds, made for vision transformers; their lane operations are in
`cosearch.hardware.vector`. Other operators are charged as the nearest kind that costs no less, unless said otherwise:

==================  ==========  ========================================================================
operators           kind        what is charged
==================  ==========  ========================================================================
views, moves        none        read in place: addressing, not arithmetic; joining (``cat``) likewise
pointwise           ADD         2 a value; a rectifier or a comparison needs 1
nonlinear           GELU        9 a value; a division of two tensors, 16 steps of a bit each, is undercharged
reductions, pools   SCORE       3 for each value read (each value of each window); a sum needs 1
normalisations      LAYERNORM   7 a value and 88 a row; root-mean-square normalisation needs less
gathers, scatters   MERGE       3 a value and 16 a row, where the image decides what goes where; else nothing
sorts               SELECT      a bitonic network for each row
best of each row    SELECT      1 a value, and a sort of the rows that is not there: overcharged
==================  ==========  ========================================================================

Names are those of the ATen operators (``torch/aten/src/ATen/native/native_functions.yaml``), without overload.
"""

from __future__ import annotations

__all__ = [
    "BATCH_NORMS",
    "BEST",
    "CONVOLUTIONS",
    "FAKE_QUANTISERS",
    "FREE",
    "GATHERS",
    "INFERENCE_BATCH_NORMS",
    "INTERPOLATIONS",
    "KEPT_WHOLE",
    "NONLINEAR",
    "NORMALISATIONS",
    "POINTWISE",
    "POOLS",
    "REDUCTIONS",
    "SCALINGS",
    "SCATTERS",
    "SDPA",
    "SHAPE_ONLY",
    "SOFTMAXES",
    "SORTS",
]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FREE = _names("""
    view reshape _unsafe_view view_as reshape_as _reshape_alias as_strided unfold flatten unflatten squeeze unsqueeze
    permute transpose t movedim swapaxes numpy_T mT adjoint expand expand_as repeat tile repeat_interleave
    slice select narrow split split_with_sizes chunk tensor_split unbind diagonal
    cat concat concatenate stack hstack vstack slice_scatter select_scatter
    clone contiguous alias detach copy lift_fresh lift_fresh_copy _to_copy to type_as
    constant_pad_nd pad reflection_pad1d reflection_pad2d replication_pad2d roll flip
    im2col pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle upsample_nearest2d
""")
"""Reads of a tensor that is there already, in another order, with gaps or with zeros around: addressing alone."""

SHAPE_ONLY = _names("""
    ones_like zeros_like full_like empty_like rand_like new_zeros new_ones new_full new_empty sym_size sym_stride
    sym_numel sym_storage_offset _assert_tensor_metadata _assert_scalar _assert_async
""")
"""Look at a tensor's shape, not at its values."""

SCALINGS = _names("mul div multiply divide true_divide")
"""By one constant number they cost nothing: it joins the scale of a quantised tensor, or the weights."""

POINTWISE = SCALINGS | _names("""
    add sub subtract rsub addcmul lerp neg negative abs sign maximum minimum fmax fmin clamp clamp_min clamp_max clip
    relu relu6 hardtanh leaky_relu prelu _prelu_kernel threshold hardsigmoid where masked_fill
    floor ceil round trunc fix eq ne lt le gt ge logical_not logical_and logical_or logical_xor
    bitwise_not bitwise_and bitwise_or isnan isinf square floor_divide remainder fmod tril triu
""")
"""One step, or a scale and one step, for each value."""

NONLINEAR = _names("""
    gelu silu mish hardswish sigmoid log_sigmoid tanh softplus elu selu celu exp exp2 expm1 log log2 log10 log1p erf
    sqrt rsqrt pow reciprocal sin cos tan atan atan2 addcdiv glu
""")
"""A polynomial, a table or a division for each value."""

REDUCTIONS = _names("""
    sum mean prod amax amin max min any all var std var_mean std_mean norm linalg_vector_norm cumsum col2im
""")
"""``max`` and ``min`` of a whole tensor; with a dimension they are in `BEST`."""

BEST = _names("max min argmax argmin aminmax")
"""The best of each row and where it is, for the overloads with a dimension."""

POOLS = _names("""
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d
""")

INTERPOLATIONS = {
    "upsample_linear1d": 2,
    "upsample_bilinear2d": 4,
    "_upsample_bilinear2d_aa": 4,
    "upsample_bicubic2d": 16,
    "_upsample_bicubic2d_aa": 16,
    "grid_sampler_2d": 4,
}
"""Values read for each value written; antialiased ones as if they enlarged."""

SOFTMAXES = _names("softmax _softmax _safe_softmax log_softmax _log_softmax")

NORMALISATIONS = _names("""
    layer_norm native_layer_norm rms_norm _fused_rms_norm group_norm native_group_norm instance_norm
""")

INFERENCE_BATCH_NORMS = _names("_native_batch_norm_legit_no_training")
"""By stored statistics: one scale and one shift a channel."""

BATCH_NORMS = _names("_native_batch_norm_legit _native_batch_norm_legit_functional native_batch_norm")
"""By the statistics of what goes in: of one image, these are instance normalisations."""

SORTS = _names("topk sort argsort msort kthvalue median")

GATHERS = _names("gather index_select index take_along_dim embedding _unsafe_index")
"""By constant indices they are reads in another order."""

SCATTERS = _names("""
    scatter scatter_add scatter_reduce index_add index_copy index_put _unsafe_index_put masked_scatter index_fill
""")

CONVOLUTIONS = _names("convolution")

SDPA = _names("""
    scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention
    _scaled_dot_product_fused_attention_overrideable _scaled_dot_product_cudnn_attention
""")

FAKE_QUANTISERS = {
    "fake_quantize_per_tensor_affine": "quant_min",
    "fake_quantize_per_channel_affine": "quant_min",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": "quant_min",
    "quantized_decomposed.quantize_per_tensor": "quant_min",
    "quantized_decomposed.quantize_per_channel": "quant_min",
    "quantized_decomposed.dequantize_per_tensor": "",
    "quantized_decomposed.dequantize_per_channel": "",
}
"""Name of the argument with the smallest code; the largest comes after it. Without one, the width stays."""

KEPT_WHOLE = (
    FREE
    | POINTWISE
    | NONLINEAR
    | REDUCTIONS
    | BEST
    | POOLS
    | SOFTMAXES
    | NORMALISATIONS
    | SORTS
    | GATHERS
    | SCATTERS
    | frozenset(INTERPOLATIONS)
    | frozenset(FAKE_QUANTISERS)
    | _names("linear matmul scaled_dot_product_attention")
)
"""Not decomposed into core ATen, because one operator says more than its parts."""

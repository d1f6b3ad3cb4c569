"""What each operator of ATen is to hardware, and the kinds of operator that stand for it.

The kinds of `cosearch.workload.OperatorKind` were made for vision transformers; their lane operations are in
`cosearch.hardware.vector`. Other operators are charged as the nearest kind that costs no less, unless said otherwise:

===================  ==========  =======================================================================
operators            kind        what is charged
===================  ==========  =======================================================================
views, moves         none        read in place: addressing, not arithmetic; joining (``cat``) likewise
one comparison       RELU        1 a value: rectifiers, bounds by a constant, signs, choices by a mask
products             MULTIPLY    2 a value
other pointwise      ADD         2 a value; a hard sigmoid needs 3
exponential, erf     GELU        9 a value; an exponential needs 7
with a reciprocal    SIGMOID     25 a value: sigmoid, tanh, SiLU, Mish; what these do beside, such as SiLU's
                                 product with x, 2, is left out
powers, roots, logs  POWER       13 a value; softplus and sines likewise (assumption)
divisions            DIVIDE      1 a value and 16 for each value of the divisor
sums, means, pools   POOL        1 for each value read (each value of each window)
other reductions     SCORE       3 for each value read
normalisations       LAYERNORM   7 a value and 88 a row; root-mean-square normalisation needs less
batch normalisation  AFFINE      2 a value; nothing where it joins the layer before
gathers, scatters    GATHER      1 a value, where the image decides what goes where; else nothing
scattered sums       MERGE       3 a value and 16 a row; a sum needs 2 a value
sorts                SELECT      a bitonic network for each row
best of each row     SELECT      1 a value, and a sort of the rows that is not there: overcharged
===================  ==========  =======================================================================

Names are those of the ATen operators (``torch/aten/src/ATen/native/native_functions.yaml``), without overload.
"""

from __future__ import annotations

__all__ = [
    "ADDING_SCATTERS",
    "BATCH_NORMS",
    "BEST",
    "COMPARISONS",
    "CONVOLUTIONS",
    "EXPONENTIALS",
    "FAKE_QUANTISERS",
    "FREE",
    "GATHERS",
    "INFERENCE_BATCH_NORMS",
    "INTERPOLATIONS",
    "KEPT_WHOLE",
    "NORMALISATIONS",
    "POINTWISE",
    "POOLS",
    "POWERS",
    "PRODUCTS_BY_VALUE",
    "RECIPROCALS",
    "REDUCTIONS",
    "SCALINGS",
    "SCATTERS",
    "SDPA",
    "SHAPE_ONLY",
    "SOFTMAXES",
    "SORTS",
    "SUMS",
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

COMPARISONS = _names("""
    relu threshold clamp_min clamp_max abs neg negative sign where masked_fill tril triu
    logical_not logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or isnan isinf
""")
"""One comparison or choice for each value."""

PRODUCTS_BY_VALUE = _names("mul multiply square leaky_relu prelu _prelu_kernel")
"""A product for each value; a leaky rectifier multiplies too."""

POINTWISE = (
    SCALINGS
    | COMPARISONS
    | PRODUCTS_BY_VALUE
    | _names("""
    add sub subtract rsub addcmul lerp maximum minimum fmax fmin clamp clip relu6 hardtanh hardsigmoid
    floor ceil round trunc fix eq ne lt le gt ge floor_divide remainder fmod
""")
)
"""One step, or a scale and one step, for each value."""

EXPONENTIALS = _names("gelu hardswish exp exp2 expm1 erf elu selu celu")
"""A polynomial for each value. A hardswish has none: sum, two bounds, product and scales come to less."""

RECIPROCALS = _names("sigmoid tanh silu mish glu reciprocal addcdiv atan2")
"""A polynomial and a division for each value."""

POWERS = _names("pow sqrt rsqrt log log2 log10 log1p softplus log_sigmoid sin cos tan atan")
"""Two polynomials for each value."""

SUMS = _names("sum mean amax amin max min any all cumsum col2im")
"""One step for each value read; ``max`` and ``min`` of a whole tensor, with a dimension they are in `BEST`."""

REDUCTIONS = SUMS | _names("prod var std var_mean std_mean norm linalg_vector_norm")
"""Many values to one."""

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

ADDING_SCATTERS = _names("scatter_add scatter_reduce index_add")
"""Several values may go to one place, where they are added."""

SCATTERS = ADDING_SCATTERS | _names("""
    scatter index_copy index_put _unsafe_index_put masked_scatter index_fill
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
    | EXPONENTIALS
    | RECIPROCALS
    | POWERS
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

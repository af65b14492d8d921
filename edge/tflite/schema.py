"""Numbers of the TensorFlow Lite schema (version 3) and what they stand for.

Facts of the format: operators by number, options of each by slot, enumerations.
"""

# ruff: noqa: SIM905 (a block of words is easier to check against the schema than a list)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OPERATORS: tuple[str, ...] = tuple(
    """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
    EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D
    LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1
    RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM
    CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
    SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
    BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM
    CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE
    SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW
    ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK
    REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR
    LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS
    WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
    BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG
    REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
    CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL
    BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD
    UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
    RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY
    STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE
    STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL
    STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL
    STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER
    STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH
    STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE
    STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL
    STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE
    DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT
    STABLEHLO_CBRT STABLEHLO_CASE
    """.split()
)
"""BuiltinOperator: the name of each number."""

CUSTOM = OPERATORS.index("CUSTOM")

POSITIVE = ("stride_", "dilation_", "filter_", "depth_multiplier", "block_size", "num_splits")
"""Beginnings of the names of options that must be at least one."""

CALLING = frozenset(
    """
    CALL CALL_ONCE IF WHILE STABLEHLO_REDUCE STABLEHLO_SCATTER STABLEHLO_REDUCE_WINDOW
    STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_CASE STABLEHLO_COMPOSITE STABLEHLO_CUSTOM_CALL
    """.split()
)
"""Operators that run another graph of the file."""

TYPES = (
    "FLOAT32 FLOAT16 INT32 UINT8 INT64 STRING BOOL INT16 COMPLEX64 INT8 FLOAT64 COMPLEX128 UINT64 "
    "RESOURCE VARIANT UINT32 UINT16 INT4 BFLOAT16 INT2 UINT4 FLOAT8_E4M3FN FLOAT8_E5M2"
).split()
"""TensorType: the name of each number."""

DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}
"""Types that are read, as NumPy has them in the file."""

ENUMERATIONS: Mapping[str, tuple[str, ...]] = {
    "Padding": ("SAME", "VALID"),
    "Activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "Weights": ("DEFAULT", "SHUFFLED4x16INT8"),
    "Kernel": ("FULL", "BASIC"),
    "Mirror": ("REFLECT", "SYMMETRIC"),
    "Type": tuple(TYPES),
}
"""The word of each number."""

_OPTIONS = """
Conv2D 1: padding Padding, stride_w int, stride_h int, fused_activation_function Activation, \
dilation_w_factor int 1, dilation_h_factor int 1, quantized_bias_type Type
DepthwiseConv2D 2: padding Padding, stride_w int, stride_h int, depth_multiplier int, \
fused_activation_function Activation, dilation_w_factor int 1, dilation_h_factor int 1
Pool2D 5: padding Padding, stride_w int, stride_h int, filter_width int, filter_height int, \
fused_activation_function Activation
SVDF 6: rank int, fused_activation_function Activation, asymmetric_quantize_inputs bool
RNN 7: fused_activation_function Activation, asymmetric_quantize_inputs bool
FullyConnected 8: fused_activation_function Activation, weights_format Weights, \
keep_num_dims bool, asymmetric_quantize_inputs bool, quantized_bias_type Type
Softmax 9: beta float
Concatenation 10: axis int, fused_activation_function Activation
Add 11: fused_activation_function Activation, pot_scale_int16 bool 1
L2Norm 12: fused_activation_function Activation
LSTM 14: fused_activation_function Activation, cell_clip float, proj_clip float, \
kernel_type Kernel, asymmetric_quantize_inputs bool
ResizeBilinear 15: -, -, align_corners bool, half_pixel_centers bool
Reshape 17: new_shape ints
SpaceToDepth 19: block_size int
Mul 21: fused_activation_function Activation
Gather 23: axis int, batch_dims int
Reducer 27: keep_dims bool
Sub 28: fused_activation_function Activation, pot_scale_int16 bool 1
Div 29: fused_activation_function Activation
Squeeze 30: squeeze_dims ints
SequenceRNN 31: time_major bool, fused_activation_function Activation, \
asymmetric_quantize_inputs bool
StridedSlice 32: begin_mask int, end_mask int, ellipsis_mask int, new_axis_mask int, \
shrink_axis_mask int, offset bool
Split 35: num_splits int
Cast 37: in_data_type Type, out_data_type Type
ArgMax 40: output_type Type
TransposeConv 49: padding Padding, stride_w int, stride_h int, \
fused_activation_function Activation, quantized_bias_type Type
Shape 55: out_type Type
ArgMin 57: output_type Type
FakeQuant 58: min float, max float, num_bits int, narrow_range bool
Pack 59: values_count int, axis int
OneHot 61: axis int
Unpack 64: num int, axis int
BidirectionalSequenceLSTM 69: fused_activation_function Activation, cell_clip float, \
proj_clip float, merge_outputs bool, time_major bool 1, asymmetric_quantize_inputs bool
BidirectionalSequenceRNN 70: time_major bool, fused_activation_function Activation, \
merge_outputs bool, asymmetric_quantize_inputs bool
UnidirectionalSequenceLSTM 71: fused_activation_function Activation, cell_clip float, \
proj_clip float, time_major bool, asymmetric_quantize_inputs bool, diagonal_recurrent_tensors bool
ResizeNearestNeighbor 74: align_corners bool, half_pixel_centers bool
LeakyRelu 75: alpha float
MirrorPad 77: mode Mirror
SplitV 79: num_splits int
ReverseSequence 87: seq_dim int, batch_dim int
DepthToSpace 94: block_size int
BatchMatMul 101: adj_x bool, adj_y bool, asymmetric_quantize_inputs bool
Cumsum 102: exclusive bool, reverse bool
Conv3D 106: padding Padding, stride_d int, stride_w int, stride_h int, \
fused_activation_function Activation, dilation_d_factor int 1, dilation_w_factor int 1, \
dilation_h_factor int 1
Gelu 116: approximate bool
"""
# A line a table: its name, its number in the union, its fields in the order of their slots, each
# with its type and its default where that is not zero; - for a slot that is out of use.

_USERS = {
    "Conv2D": "CONV_2D",
    "DepthwiseConv2D": "DEPTHWISE_CONV_2D",
    "Pool2D": "AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D",
    "SVDF": "SVDF",
    "RNN": "RNN",
    "FullyConnected": "FULLY_CONNECTED",
    "L2Norm": "L2_NORMALIZATION",
    "LSTM": "LSTM",
    "Reducer": "MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN REDUCE_ANY REDUCE_ALL",
    "SequenceRNN": "UNIDIRECTIONAL_SEQUENCE_RNN",
    "BidirectionalSequenceLSTM": "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BidirectionalSequenceRNN": "BIDIRECTIONAL_SEQUENCE_RNN",
    "UnidirectionalSequenceLSTM": "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "BatchMatMul": "BATCH_MATMUL",
    "Conv3D": "CONV_3D CONV_3D_TRANSPOSE",
}
"""Operators of the options whose name is not the operator's own."""


@dataclass(frozen=True)
class Field:
    """An option. kind: int, bool, float, ints, or an enumeration's name. default: as a number."""

    slot: int
    name: str
    kind: str
    default: Any


@dataclass(frozen=True)
class Options:
    """The options of an operator. number: of their table in the union."""

    number: int
    fields: tuple[Field, ...]


def _fields(text: str) -> tuple[Field, ...]:
    fields = []
    for slot, written in enumerate(text.split(", ")):
        if written != "-":
            name, kind, *default = written.split()
            fields.append(Field(slot, name, kind, int(default[0]) if default else 0))
    return tuple(fields)


def _options() -> dict[str, Options]:
    found = {}
    plain = {code.replace("_", "").lower(): code for code in OPERATORS}
    for line in _OPTIONS.strip().splitlines():
        head, text = line.split(": ")
        name, number = head.split()
        codes = _USERS[name].split() if name in _USERS else [plain[name.lower()]]
        for code in codes:
            found[code] = Options(int(number), _fields(text))
    return found


OPTIONS: Mapping[str, Options] = _options()
"""Operator -> its options. An operator that is not here has none that are read."""

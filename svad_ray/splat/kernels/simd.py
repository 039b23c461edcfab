"""Eight float32 lanes as a numba type, so that pixel loops are written in Python and compiled to whole-register instructions.

Plain numba loops over pixels with tests inside are not vectorised by LLVM. `Vec8` and `Mask8` live only inside kernels; they never
cross a kernel's signature. Memory is addressed as ``(array, flat index)`` on C-contiguous float32 arrays, unaligned.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 8
_F32, _I32, _I64, _I1 = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)
_VEC, _INTS, _MASK = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES), ir.VectorType(_I1, LANES)


class Vec8Type(types.Type):
    """Eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Vec8")


class Mask8Type(types.Type):
    """Eight truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask8")


vec8, mask8 = Vec8Type(), Mask8Type()


@register_model(Vec8Type)
class _Vec8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VEC)


@register_model(Mask8Type)
class _Mask8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _MASK)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VEC, [ir.Constant(_F32, float(value))] * LANES)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [ir.Constant(_I32, value)] * LANES)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VEC.as_pointer())


def _elementwise(result: types.Type, arguments: tuple[types.Type, ...], emit: Callable[..., Any]) -> Any:
    """An intrinsic of fixed types whose code is ``emit(builder, *values)``; numba wants the exact number of arguments spelled out."""
    typed = result(*arguments), lambda context, builder, signature, values: emit(builder, *values)
    if len(arguments) == 1:

        def unary(typingctx, x):
            return typed

        return intrinsic(unary)
    if len(arguments) == 2:

        def binary(typingctx, x, y):
            return typed

        return intrinsic(binary)

    def ternary(typingctx, x, y, z):
        return typed

    return intrinsic(ternary)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VEC, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, value, ir.Constant(_I32, 0)), undefined, _integers(0))


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z with one rounding."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VEC, [_VEC] * 3), "llvm.fma.v8f32")
    return builder.call(function, [x, y, z])


def _count(builder: Any, mask: Any) -> Any:
    bits = ir.IntType(LANES)
    return builder.zext(builder.ctpop(builder.bitcast(mask, bits)), _I64)


def _each_lane(name: str) -> Callable[..., Any]:
    """One of LLVM's functions of a single number, on all lanes."""

    def emit(builder: Any, x: Any) -> Any:
        return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VEC, [_VEC]), f"llvm.{name}.v8f32"), [x])

    return emit


def _shuffled(builder: Any, x: Any, y: Any, order: tuple[int, ...]) -> Any:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(order)), [ir.Constant(_I32, n) for n in order]))


def _lane_int(lane: int) -> Callable[..., Any]:
    """A lane that holds a whole number, as an integer."""
    return lambda builder, x: builder.sext(builder.extract_element(builder.fptosi(x, _INTS), ir.Constant(_I32, lane)), _I64)


def _exp2(builder: Any, x: Any) -> Any:
    """2**x: integer part by adding 1.5 * 2**23, fraction in [-0.5, 0.5] by a degree-5 near-minimax polynomial (1.1e-7 relative)."""
    magic = _constant(12582912.0)
    shifted = builder.fadd(x, magic)
    fraction = builder.fsub(x, builder.fsub(shifted, magic))
    value = _constant(EXP2_COEFFICIENTS[0])
    for coefficient in EXP2_COEFFICIENTS[1:]:
        value = _fma(builder, value, fraction, _constant(coefficient))
    exponent = builder.shl(builder.bitcast(shifted, _INTS), _integers(23))
    return builder.bitcast(builder.add(builder.bitcast(value, _INTS), exponent), _VEC)


def _sums(builder: Any, vectors: list[Any]) -> Any:
    """The sums of the lanes of eight vectors, in the eight lanes of one; always in the same order."""
    for low, high in (((0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15)), ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
                      ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))):  # fmt: skip
        pairs = zip(vectors[::2], vectors[1::2])
        vectors = [builder.fadd(_shuffled(builder, x, y, low), _shuffled(builder, x, y, high)) for x, y in pairs]
    return vectors[0]


# Least worst relative error of 2**f on [-0.5, 0.5] with 1 fixed, highest power first; tests/splat/test_simd.py holds it against numpy.
EXP2_COEFFICIENTS = (0.0013264727, 0.00967151265, 0.0555073374, 0.240222421, 0.693146978, 1.0)

broadcast = _elementwise(vec8, (types.float32,), _splat)
fma = _elementwise(vec8, (vec8, vec8, vec8), _fma)
minimum = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y))
exp2 = _elementwise(vec8, (vec8,), _exp2)
maximum = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
choose = _elementwise(vec8, (mask8, vec8, vec8), lambda b, mask, x, y: b.select(mask, x, y))
keep = _elementwise(vec8, (mask8, vec8), lambda b, mask, x: b.select(mask, x, _constant(0.0)))
both = _elementwise(mask8, (mask8, mask8), lambda b, x, y: b.and_(x, y))
any_lane = _elementwise(
    types.boolean, (mask8,), lambda b, mask: b.icmp_unsigned("!=", b.bitcast(mask, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0))
)
count_lanes = _elementwise(types.int64, (mask8,), _count)
bits_of = _elementwise(types.int64, (mask8,), lambda b, mask: b.zext(b.bitcast(mask, ir.IntType(LANES)), _I64))
mask_of = _elementwise(mask8, (types.int64,), lambda b, x: b.bitcast(b.trunc(x, ir.IntType(LANES)), _MASK))
floor, ceil, sqrt = (_elementwise(vec8, (vec8,), _each_lane(name)) for name in ("floor", "ceil", "sqrt"))
absolute = _elementwise(vec8, (vec8,), _each_lane("fabs"))
swap_neighbours = _elementwise(vec8, (vec8,), lambda b, x: _shuffled(b, x, x, (1, 0, 3, 2, 5, 4, 7, 6)))
lane_0, lane_2, lane_4, lane_6 = (_elementwise(types.int64, (vec8,), _lane_int(lane)) for lane in (0, 2, 4, 6))
_add = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.fadd(x, y))
_sub = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.fsub(x, y))
_mul = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.fmul(x, y))
_div = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.fdiv(x, y))
_ge = _elementwise(mask8, (vec8, vec8), lambda b, x, y: b.fcmp_ordered(">=", x, y))
_gt = _elementwise(mask8, (vec8, vec8), lambda b, x, y: b.fcmp_ordered(">", x, y))


@intrinsic
def lane_numbers(typingctx):
    """0, 1, ... 7."""
    return vec8(), lambda context, builder, signature, values: ir.Constant(_VEC, [ir.Constant(_F32, float(lane)) for lane in range(LANES)])


@intrinsic
def load(typingctx, array, index):
    """The eight elements from flat ``index`` on."""

    def emit(context, builder, signature, values):
        return builder.load(_pointer(context, builder, signature.args[0], *values), align=4)

    return vec8(array, types.intp), emit


@intrinsic
def store(typingctx, array, index, value):
    """Write eight elements from flat ``index`` on."""

    def emit(context, builder, signature, values):
        builder.store(values[2], _pointer(context, builder, signature.args[0], *values[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec8), emit


@intrinsic
def get(typingctx, array, index):
    """One element; whole numbers as int64. Unlike ``array[index]`` without a test for negative indices."""
    dtype = array.dtype

    def emit(context, builder, signature, values):
        value = builder.load(builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]]))
        if not isinstance(dtype, types.Integer):
            return value
        return context.cast(builder, value, dtype, types.int64)

    return (types.int64 if isinstance(dtype, types.Integer) else dtype)(array, types.intp), emit


@intrinsic
def put(typingctx, array, index, value):
    """Write the low bits of a whole number as one element of an array of narrower ones."""

    def emit(context, builder, signature, values):
        pointer = builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])
        builder.store(builder.trunc(values[2], pointer.type.pointee), pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), emit


@intrinsic
def put_run(typingctx, array, index, first):
    """Write the eight bytes ``first``, ``first`` + 1, ... from ``index`` on of an array of bytes, at once."""

    def emit(context, builder, signature, values):
        pointer = builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])
        run = builder.add(builder.mul(values[2], ir.Constant(_I64, 0x0101010101010101)), ir.Constant(_I64, 0x0706050403020100))
        builder.store(run, builder.bitcast(pointer, _I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), emit


def _vectors(count: int) -> types.BaseTuple:
    return types.BaseTuple.from_types([vec8] * count)


def _packed(context: Any, builder: Any, values: list[Any]) -> Any:
    return context.make_tuple(builder, _vectors(len(values)), values)


def _unpacked(builder: Any, value: Any, count: int) -> list[Any]:
    return [builder.extract_value(value, k) for k in range(count)]


@intrinsic
def zeros(typingctx, tag):
    """As many vectors of 0 as ``tag`` is long."""
    count = len(tag)
    return _vectors(count)(tag), lambda context, builder, signature, values: _packed(context, builder, [_constant(0.0)] * count)


@intrinsic
def load_each(typingctx, array, index, tag):
    """As many vectors as ``tag`` is long, one after the other in memory from flat ``index`` on."""
    count = len(tag)

    def emit(context, builder, signature, values):
        first = _pointer(context, builder, array, *values[:2])
        return _packed(context, builder, [builder.load(builder.gep(first, [ir.Constant(_I64, k)]), align=4) for k in range(count)])

    return _vectors(count)(array, types.intp, tag), emit


@intrinsic
def store_each(typingctx, array, index, vectors):
    """Write vectors one after the other from flat ``index`` on."""

    def emit(context, builder, signature, values):
        first = _pointer(context, builder, array, *values[:2])
        for k, vector in enumerate(_unpacked(builder, values[2], len(vectors))):
            builder.store(vector, builder.gep(first, [ir.Constant(_I64, k)]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), emit


@intrinsic
def broadcast_each(typingctx, array, index, tag):
    """The elements from flat ``index`` on, each on eight lanes; as many as ``tag`` is long."""
    count = len(tag)

    def emit(context, builder, signature, values):
        first = builder.gep(context.make_array(array)(context, builder, values[0]).data, [values[1]])
        numbers = [builder.load(builder.gep(first, [ir.Constant(_I64, k)])) for k in range(count)]
        return _packed(context, builder, [_splat(builder, number) for number in numbers])

    return _vectors(count)(array, types.intp, tag), emit


@intrinsic
def fma_each(typingctx, factor, vectors, addends):
    """``factor`` times every vector plus its addend."""
    count = len(vectors)

    def emit(context, builder, signature, values):
        pairs = zip(_unpacked(builder, values[1], count), _unpacked(builder, values[2], count))
        return _packed(context, builder, [_fma(builder, values[0], x, y) for x, y in pairs])

    return vectors(vec8, vectors, vectors), emit


@intrinsic
def add_to(typingctx, sums, x, y):
    """``sums`` (two vectors or none) plus x and y, the first to the first."""

    def emit(context, builder, signature, values):
        pairs = zip(_unpacked(builder, values[0], len(sums)), values[1:])
        return _packed(context, builder, [builder.fadd(total, new) for total, new in pairs])

    return sums(sums, vec8, vec8), emit


@intrinsic
def dot_each(typingctx, left, right):
    """Sum of the products of two rows of vectors."""
    count = len(left)

    def emit(context, builder, signature, values):
        pairs = list(zip(_unpacked(builder, values[0], count), _unpacked(builder, values[1], count)))
        total = builder.fmul(*pairs[0])
        for x, y in pairs[1:]:
            total = _fma(builder, x, y, total)
        return total

    return vec8(left, right), emit


@intrinsic
def store_sums(typingctx, array, index, vectors):
    """Write the sum of the lanes of every vector, one number each, from flat ``index`` on."""
    count = len(vectors)

    def emit(context, builder, signature, values):
        data = context.make_array(array)(context, builder, values[0]).data
        for first in range(0, count, LANES):
            some = _unpacked(builder, values[2], count)[first : first + LANES]
            sums = _sums(builder, some + [_constant(0.0)] * (LANES - len(some)))
            if len(some) < LANES:
                sums = _shuffled(builder, sums, sums, tuple(range(len(some))))
            place = builder.gep(data, [builder.add(values[1], ir.Constant(_I64, first))])
            builder.store(sums, builder.bitcast(place, sums.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), emit


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of element ``index`` of a contiguous array."""

    def emit(context, builder, signature, values):
        data = builder.gep(context.make_array(signature.args[0])(context, builder, values[0]).data, [values[1]])
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32]), "llvm.prefetch.p0")
        builder.call(function, [builder.bitcast(data, byte), *(ir.Constant(_I32, n) for n in (0, 3, 1))])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


def _operator(symbol: Any, implementation: Any) -> None:
    @overload(symbol)
    def _(left, right):
        if isinstance(left, Vec8Type) and isinstance(right, Vec8Type):
            return lambda left, right: implementation(left, right)


for _symbol, _implementation in ((operator.add, _add), (operator.sub, _sub), (operator.mul, _mul), (operator.truediv, _div)):
    _operator(_symbol, _implementation)
_operator(operator.ge, _ge)
_operator(operator.gt, _gt)

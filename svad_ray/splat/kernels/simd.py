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
_F32, _I32, _I1 = ir.FloatType(), ir.IntType(32), ir.IntType(1)
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


def _rounded(name: str) -> Callable[..., Any]:
    """Round a scalar with one instruction (math.floor and math.ceil are calls into libm, which spill every register)."""

    def emit(builder: Any, x: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_F32, [_F32]), f"llvm.{name}.f32")
        return builder.fptosi(builder.call(function, [x]), ir.IntType(64))

    return emit


def _count(builder: Any, mask: Any) -> Any:
    bits = ir.IntType(LANES)
    return builder.zext(builder.ctpop(builder.bitcast(mask, bits)), ir.IntType(64))


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


def _sum(builder: Any, value: Any) -> Any:
    """Sum of the eight lanes, always in the same order."""
    undefined = ir.Constant(_VEC, ir.Undefined)
    for step in (4, 2, 1):
        order = ir.Constant(_INTS, [ir.Constant(_I32, (lane + step) % LANES) for lane in range(LANES)])
        value = builder.fadd(value, builder.shuffle_vector(value, undefined, order))
    return builder.extract_element(value, ir.Constant(_I32, 0))


# Least worst relative error of 2**f on [-0.5, 0.5] with 1 fixed, highest power first; tests/splat/test_simd.py holds it against numpy.
EXP2_COEFFICIENTS = (0.0013264727, 0.00967151265, 0.0555073374, 0.240222421, 0.693146978, 1.0)

broadcast = _elementwise(vec8, (types.float32,), _splat)
fma = _elementwise(vec8, (vec8, vec8, vec8), _fma)
minimum = _elementwise(vec8, (vec8, vec8), lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y))
exp2 = _elementwise(vec8, (vec8,), _exp2)
horizontal_sum = _elementwise(types.float32, (vec8,), _sum)
keep = _elementwise(vec8, (mask8, vec8), lambda b, mask, x: b.select(mask, x, _constant(0.0)))
both = _elementwise(mask8, (mask8, mask8), lambda b, x, y: b.and_(x, y))
any_lane = _elementwise(
    types.boolean, (mask8,), lambda b, mask: b.icmp_unsigned("!=", b.bitcast(mask, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0))
)
count_lanes = _elementwise(types.int64, (mask8,), _count)
floor_int = _elementwise(types.int64, (types.float32,), _rounded("floor"))
ceil_int = _elementwise(types.int64, (types.float32,), _rounded("ceil"))
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

"""Vectors of 16 bytes in compiled functions, for what loops over bytes are not compiled into.

Intrinsics of Numba emit LLVM's instructions, which it translates for whatever processor there is.
"""

from __future__ import annotations

from typing import Any, List, Sequence

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# A vector holds four pixels of three bytes and a third of another: it is read and written where so
# many pixels more follow in the row.
BEYOND = 2
# An order of a vector's bytes, 16 is a zero: RGB -> RGB0.
SPREAD = [0, 1, 2, 16, 3, 4, 5, 16, 6, 7, 8, 16, 9, 10, 11, 16]

_BYTE = ir.IntType(8)
_LANE = ir.IntType(32)
_BYTES = ir.VectorType(_BYTE, 16)
_PIXELS = ir.VectorType(_LANE, 4)


class Emitter:
    """Writes the instructions of one function."""

    def __init__(self, context: Any, builder: Any) -> None:
        self._context, self._builder = context, builder

    def _place(self, kind: Any, array: Any, offset: Any) -> Any:
        data = self._context.make_array(kind)(self._context, self._builder, array).data
        place = self._builder.gep(self._builder.bitcast(data, _BYTE.as_pointer()), [offset])
        return self._builder.bitcast(place, _BYTES.as_pointer())

    def load(self, kind: Any, array: Any, offset: Any) -> Any:
        return self._builder.load(self._place(kind, array, offset), align=1)

    def store(self, value: Any, kind: Any, array: Any, offset: Any) -> None:
        value = self._builder.bitcast(value, _BYTES)
        self._builder.store(value, self._place(kind, array, offset), align=1)

    def add(self, one: Any, other: Any) -> Any:
        return self._builder.add(one, other)

    def shuffled(self, one: Any, other: Any, lanes: Sequence[int]) -> Any:
        mask = ir.Constant(ir.VectorType(_LANE, len(lanes)), list(lanes))
        return self._builder.shuffle_vector(one, other, mask)

    def moved(self, value: Any, lanes: Sequence[int]) -> Any:
        """Bytes of a vector in another order; 16 is a zero."""
        return self.shuffled(self._builder.bitcast(value, _BYTES), ir.Constant(_BYTES, None), lanes)

    def transposed(self, rows: List[Any]) -> List[Any]:
        """Four rows of four lanes."""
        a, b, c, d = (self._builder.bitcast(row, _PIXELS) for row in rows)
        low, high = [0, 4, 1, 5], [2, 6, 3, 7]
        result = []
        for lanes in (low, high):
            upper, lower = self.shuffled(a, b, lanes), self.shuffled(c, d, lanes)
            result += [self.shuffled(upper, lower, half) for half in ([0, 1, 4, 5], [2, 3, 6, 7])]
        return result

    def concatenated(self, one: Any, other: Any) -> Any:
        """Two vectors in one of twice the length."""
        count = one.type.count
        return self.shuffled(one, other, range(2 * count))

    def colours(self, rows: Any, which: int) -> Any:
        """One pixel RGB of each of two rows of 16 bytes, as four floats each; the last is 0."""
        zero = ir.Constant(rows.type, None)
        lanes = []
        for start in (0, 16):
            for channel in range(3):
                lanes += [start + 3 * which + channel, 32, 32, 32]
            lanes += [32] * 4
        values = self._builder.bitcast(self.shuffled(rows, zero, lanes), ir.VectorType(_LANE, 8))
        return self._builder.sitofp(values, ir.VectorType(ir.FloatType(), 8))

    def repeated(self, value: Any, count: int) -> Any:
        """A float in all lanes."""
        kind = ir.VectorType(ir.FloatType(), count)
        one = self._builder.insert_element(ir.Constant(kind, None), value, _LANE(0))
        return self.shuffled(one, one, [0] * count)

    def sum_of_products(self, factors: Sequence[Any], vectors: Sequence[Any]) -> Any:
        """Of vectors of floats."""
        total = self._builder.fmul(factors[0], vectors[0])
        for factor, vector in zip(factors[1:], vectors[1:]):
            product = self._builder.fmul(factor, vector, flags=("contract",))
            total = self._builder.fadd(total, product, flags=("contract",))
        return total

    def lanes(self, vector: Any, count: int) -> List[Any]:
        """The first values of a vector."""
        return [self._builder.extract_element(vector, _LANE(i)) for i in range(count)]


def _emit_weighted_square(_: Any, source: Any, at: Any, step: Any, down: Any, across: Any) -> Any:
    """Red, green and blue of 4x4 pixels RGB, weighted, as float32.

    Args of the compiled function: array, byte of the first pixel, bytes to the next row, and four
    float32 weights each way; BEYOND pixels follow in every row.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emitter, (source, at, step, down, across) = Emitter(context, builder), values
        factors = [emitter.repeated(builder.extract_value(across, k), 8) for k in range(4)]
        sums = []
        for j in (0, 2):
            upper = emitter.load(signature.args[0], source, at)
            lower = emitter.load(signature.args[0], source, emitter.add(at, step))
            rows = emitter.concatenated(upper, lower)
            colours = [emitter.colours(rows, k) for k in range(4)]
            weights = [emitter.repeated(builder.extract_value(down, j + i), 4) for i in (0, 1)]
            row_sums = emitter.sum_of_products(factors, colours)
            sums.append(builder.fmul(emitter.concatenated(*weights), row_sums))
            at = emitter.add(emitter.add(at, step), step)
        both = builder.fadd(*sums)
        total = builder.fadd(
            emitter.shuffled(both, both, range(4)), emitter.shuffled(both, both, range(4, 8))
        )
        return context.make_tuple(builder, signature.return_type, emitter.lanes(total, 3))

    weights = types.UniTuple(types.float32, 4)
    result = types.UniTuple(types.float32, 3)
    return result(source, types.intp, types.intp, weights, weights), generate


weighted_square: Any = intrinsic(_emit_weighted_square)

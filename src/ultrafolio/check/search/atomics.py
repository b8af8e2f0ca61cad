"""Machine instructions for compiled code: prefetch, atomic add, atomic load, yield."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

ALIGNED = 8
"""Alignment in bytes of elements that threads share."""


def plain() -> SimpleNamespace:
    """Returns the functions of compiled() as plain Python, for one thread."""

    def add(array: Any, i: int, value: int) -> int:
        array[i] += value
        return int(array[i]) - value

    return SimpleNamespace(
        prefetch=lambda array, i: None, add=add, peek=lambda array, i: int(array[i]), give_way=lambda: None
    )


@functools.cache
def compiled() -> SimpleNamespace:
    """Returns functions that Numba compiles to one instruction, or one system call.

    prefetch(array, i)    prefetch row i of an array into the cache
    add(array, i, value)  atomic fetch-and-add of an int64 element; returns the old value
    peek(array, i)        atomic load of an int64 element
    give_way()            sched_yield()
    """
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    word = ir.IntType(32)

    def address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
        made = context.make_array(kind)(context, builder, array)
        offset = builder.mul(i, builder.extract_value(made.strides, 0))
        return builder.gep(builder.bitcast(made.data, ir.IntType(8).as_pointer()), [offset])

    def element(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
        return builder.bitcast(address(context, builder, kind, array, i), ir.IntType(64).as_pointer())

    @intrinsic
    def prefetch(typing: Any, array: Any, i: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = address(context, builder, signature.args[0], *arguments)
            kind = ir.FunctionType(ir.VoidType(), [at.type, word, word, word])
            llvm = builder.module.declare_intrinsic("llvm.prefetch", [at.type], kind)
            builder.call(llvm, [at, *(ir.Constant(word, n) for n in (0, 3, 1))])
            return context.get_dummy_value()

        return types.void(array, types.intp), code

    @intrinsic
    def add(typing: Any, array: Any, i: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = element(context, builder, signature.args[0], *arguments[:2])
            return builder.atomic_rmw("add", at, arguments[2], "seq_cst")

        return types.int64(array, types.intp, types.int64), code

    @intrinsic
    def peek(typing: Any, array: Any, i: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at = element(context, builder, signature.args[0], *arguments)
            return builder.load_atomic(at, "seq_cst", ALIGNED)

        return types.int64(array, types.intp), code

    @intrinsic
    def give_way(typing: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(word, [])
            insert: Any = cgutils.get_or_insert_function
            builder.call(insert(builder.module, kind, "sched_yield"), [])
            return context.get_dummy_value()

        return types.void(), code

    return SimpleNamespace(prefetch=prefetch, add=add, peek=peek, give_way=give_way)

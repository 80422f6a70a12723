"""Pickles read as data.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever the
program names. This one builds plain values (numbers, text, bytes, lists, tuples, sets, dicts) and
refuses everything else, except calls of names that the caller lists, which run functions of the
caller. It never imports anything, sets no attributes, and nothing of the file is ever compiled.
``pickle.Unpickler`` does not serve here, because overriding its ``find_class`` guards names alone;
torch's weights-only loader reads torch's own files only (ADR 0013).
``pickletools`` of the standard library splits the file into instructions and checks their lengths.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from clipgan.errors import ImportWeightsError

Constructors = Mapping[str, Callable[..., object]]
"""Full names a pickle may call, and what is called in their place."""


class ReadableFile(Protocol):
    """The part of a binary file that is used; a memory map has it, too."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class RestoresState:
    """A value whose pickle also carries a state, which is not needed."""


@dataclass(frozen=True, slots=True)
class _AllowedName:
    name: str
    construct: Callable[..., object]


_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING_TO_DO = frozenset({"PROTO", "FRAME", "STOP"})
_DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, MemoryError)
"""What reading an instruction raises where bytes were lost or changed."""


def read_inert_pickle(
    file: ReadableFile,
    constructors: Constructors,
    *,
    load_persistent: Callable[[object], object] | None = None,
) -> object:
    """Read one pickle of protocol 2 to 5 up to its end; the file may go on behind it.

    Args:
        constructors: the only names that may be called, each with the function called instead.
        load_persistent: returns the value of a persistent id; None: such ids are refused.

    Raises:
        ImportWeightsError: the pickle names or does anything else (the message says what), or it
            is truncated or damaged. Nothing that it contains has been run.
    """
    machine = _Machine(constructors, load_persistent)
    start = file.tell()
    try:
        for opcode, argument, position in pickletools.genops(file):  # type: ignore[arg-type]
            machine.position = position or start
            machine.execute(opcode.name, argument)
        return machine.pop()
    except _DAMAGE as error:
        raise ImportWeightsError(
            f"truncated or damaged near byte {machine.position} ({describe(error)}); "
            "get the file again"
        ) from None


def describe(value: object) -> str:
    """A name or an exception of a foreign file as short, printable ASCII on one line."""
    text = value if isinstance(value, str) else f"{type(value).__name__}: {value}"
    shown = ascii(text[:200])[1:-1]
    return shown if len(shown) <= 100 else shown[:97] + "..."


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(
        self, constructors: Constructors, load_persistent: Callable[[object], object] | None
    ) -> None:
        self.constructors, self.load_persistent = constructors, load_persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.position = 0

    def execute(self, name: str, argument: Any) -> None:
        """Run one instruction."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name not in _NOTHING_TO_DO:
            instruction = _INSTRUCTIONS.get(name)
            if instruction is None:
                raise ImportWeightsError(
                    f"uses the pickle instruction {name}, which no LAFITE weights contain: refused"
                )
            instruction(self, argument)

    def pop(self) -> Any:
        """Take the uppermost value, but nothing from below the last mark."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError("empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def discard(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def discard_to_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def push_new(self, kind: type) -> None:
        self.stack.append(kind())

    def push_tuple(self, size: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(size)][::-1]))

    def append_items(self, values: list[Any]) -> None:
        _expect(self.stack[-1], list).extend(values)

    def add_items(self, values: list[Any]) -> None:
        _expect(self.stack[-1], set).update(_expect_key(value) for value in values)

    def set_items(self, values: list[Any]) -> None:
        target = _expect(self.stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_expect_key(key)] = value

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def push_name(self, name: str) -> None:
        construct = self.constructors.get(name)
        if construct is None:
            raise ImportWeightsError(
                f"asks for {describe(name)}, which no LAFITE weights need: refused, nothing was run"
            )
        self.stack.append(_AllowedName(name, construct))

    def push_stacked_name(self, _: Any) -> None:
        name, module = _expect(self.pop(), str), _expect(self.pop(), str)
        self.push_name(f"{module}.{name}")

    def construct(self, _: Any) -> None:
        arguments, called = _expect(self.pop(), tuple), self.pop()
        if not isinstance(called, _AllowedName):
            raise ImportWeightsError(f"calls a {type(called).__name__}: refused, nothing was run")
        self.stack.append(called.construct(*arguments))

    def restore_state(self, _: Any) -> None:
        self.pop()
        if not isinstance(self.stack[-1], RestoresState):
            raise ImportWeightsError(
                f"sets attributes of a {type(self.stack[-1]).__name__}: refused, nothing was run"
            )

    def push_persistent(self, _: Any) -> None:
        if self.load_persistent is None:
            raise ImportWeightsError("refers to objects outside the file: refused")
        self.stack.append(self.load_persistent(self.pop()))


def _expect(value: Any, kind: type) -> Any:
    # Exactly this type: a name or a tensor on the stack takes part in nothing.
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where a {kind.__name__} belongs")
    return value


def _expect_key(value: Any) -> Any:
    # Plain keys only: hashing tuples nested a million deep overflows the C stack.
    if type(value) not in (str, int, bool, float, type(None)):
        raise TypeError(f"{type(value).__name__} as a key")
    return value


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "POP_MARK": _Machine.discard_to_mark,
    "EMPTY_DICT": lambda machine, _: machine.push_new(dict),
    "EMPTY_LIST": lambda machine, _: machine.push_new(list),
    "EMPTY_SET": lambda machine, _: machine.push_new(set),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "APPEND": lambda machine, _: machine.append_items([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append_items(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    # pickletools returns module and name with a space between them.
    "GLOBAL": lambda machine, argument: machine.push_name(argument.replace(" ", ".", 1)),
    "STACK_GLOBAL": _Machine.push_stacked_name,
    "REDUCE": _Machine.construct,
    "NEWOBJ": _Machine.construct,
    "BUILD": _Machine.restore_state,
    "BINPERSID": _Machine.push_persistent,
}

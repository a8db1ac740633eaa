"""The name of a C++ function inside its declaration.

    std::vector<int, std::allocator<int> >::push_back(int const&)         plain
    void std::sort<int*>(int*, int*)                                      a template also has a return type
    A::run(int) const::{lambda(auto:1)#1}::operator()(int) const          only the last list is cut
    bool operator< <char>(std::string const&, char const*)                brackets that are none
    Json::operator std::string() const                                    a space that is none
    void (*pick<int>(int))(char)                                          returns a pointer to a function

Source: Itanium C++ ABI, section 5.1; libiberty/cp-demangle.c (how it prints).
"""

import re

_OPERATOR = re.compile(r"\boperator(?:<=>|<<=?|>>=?|->\*?|<=|>=|<|>|\(\)|\[\]|,)(?: (?=<))?")
_TOKEN = re.compile(r'[][(){}<> ]|\boperator[ "]')
_INNER_QUALIFIERS = re.compile(r"(?: const| volatile| noexcept| &&?)+(?=::)")
_LAST_QUALIFIERS = re.compile(r"(?: const| volatile| noexcept| &&?)+$")
_ARROW = re.compile(r"->")
_SPECIAL = re.compile(r"^(?:[\w-]+ )+(?:to|for) ")
_OPENING = {")": "(", ">": "<", "]": "[", "}": "{"}


def without_signature(declaration: str) -> str:
    """Return a demangled declaration without return type, arguments and qualifiers.

    What is not a function's declaration, or is not understood, is returned whole.
    """
    special = _SPECIAL.match(declaration)
    prefix = special.group() if special else ""
    if special and not prefix.endswith(("thunk to ", "clone for ")):
        return declaration  # "typeinfo for ..." stands for data
    # Same length, so that places in `plain` are places in `declaration`.
    plain = declaration
    for pattern in (_OPERATOR, _ARROW, _INNER_QUALIFIERS):
        plain = pattern.sub(lambda match: "_" * len(match.group()), plain)
    start, limit = _name_range(plain, len(prefix), len(_LAST_QUALIFIERS.sub("", declaration)))
    return prefix + declaration[start:limit] if start < limit else declaration


def _name_range(plain: str, start: int, limit: int) -> tuple[int, int]:
    """Return where the name is in plain[start:limit]; (0, 0) when there are no arguments after it."""
    tokens = _outer_tokens(plain, start, limit)
    if not tokens or tokens[-1][1] != limit or plain[tokens[-1][0]] != "(":
        return 0, 0
    arguments = tokens[-1][0]
    if len(tokens) > 1 and tokens[-2][1] == arguments and plain[tokens[-2][0] :][:2] in ("(*", "(&"):
        return _name_range(plain, tokens[-2][0] + 2, arguments - 1)
    for token_start, token_limit in tokens:
        if plain.startswith("operator", token_start):
            break
        if plain[token_start] == " ":
            start = token_limit
    return start, arguments


def _outer_tokens(plain: str, start: int, limit: int) -> list[tuple[int, int]]:
    """Return the ranges of spaces, brackets with their contents and the word operator outside of brackets.

    Empty when the brackets are not balanced.
    """
    tokens: list[tuple[int, int]] = []
    stack: list[int] = []  # places of open brackets
    for match in _TOKEN.finditer(plain, start, limit):
        text = match.group()
        if text in _OPENING.values():
            stack.append(match.start())
        elif text in _OPENING:
            while stack and plain[stack[-1]] == "<" and text != ">":
                stack.pop()  # a comparison, not a bracket
            if stack and plain[stack[-1]] == _OPENING[text]:
                opening = stack.pop()
                if not stack:
                    tokens.append((opening, match.end()))
            elif text != ">":
                return []
        elif not stack:
            tokens.append(match.span())
    return [] if stack else tokens

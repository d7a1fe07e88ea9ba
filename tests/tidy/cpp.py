"""Reads just enough C++ for the rules: text without comments and literals, includes, where functions are."""
import re
from typing import NamedTuple

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|'
    r"(?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])*'",
    re.DOTALL)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)


def _blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def code_of(text):
    """The text with comments and literals blanked; every character stays where it was."""
    return _TOKEN.sub(_blank, text)


def includes(text):
    """(line, "<" or quote, path) of every include that is not commented out."""
    comments_only = re.sub(r"//[^\n]*|/\*.*?\*/", _blank, text, flags=re.DOTALL)
    for match in _INCLUDE.finditer(comments_only):
        yield text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)


class Function(NamedTuple):
    name: str
    first: int  # line numbers, from 1
    last: int
    body: str


def _is_function_head(head):
    head = re.sub(r"\[\[[^\]]*\]\]", " ", head)
    while True:
        shorter = re.sub(r"^\s*template\s*<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>", " ", head)
        if shorter == head:
            break
        head = shorter
    if re.match(r"\s*(?:public|private|protected)\s*:", head):
        head = head.split(":", 1)[1]
    if re.match(r"\s*(?:inline\s+)?(?:namespace|class|struct|union|enum|extern)\b", head) and ")" not in head:
        return False
    before = head.split("(", 1)[0]
    if "(" not in head or ")" not in head:
        return False
    return "=" not in before or "operator" in before


def functions(text):
    """The function definitions at namespace and class level, with their lines; test macros count too."""
    code = _DIRECTIVE.sub(_blank, code_of(text))
    found, stack, start, parens = [], [], 0, 0
    for at, char in enumerate(code):
        if char == "(":
            parens += 1
        elif char == ")":
            parens -= 1
        elif char == "{":
            head = code[start:at]
            inside = any(kind != "scope" for kind, *_ in stack)
            if inside:
                kind = "other"
            elif _is_function_head(head):
                kind = "function"
            elif re.search(r"\b(?:namespace|class|struct|union|extern)\b", head) and "=" not in head:
                kind = "scope"
            else:
                kind = "scope" if re.search(r"\bextern\b", head) else "other"
            begin = start + len(head) - len(head.lstrip())
            stack.append((kind, begin, at, head))
            if not parens:
                start = at + 1
        elif char == "}" and stack:
            kind, begin, brace, head = stack.pop()
            if kind == "function":
                found.append(Function(" ".join(head.split()), code.count("\n", 0, begin) + 1,
                                      code.count("\n", 0, at) + 1, code[brace + 1:at]))
            if not parens:
                start = at + 1
        elif char == ";" and not parens:
            start = at + 1
    return found

"""One raw line: decoded, without colours and control characters, and what is left of it without its prefix.

Prefixes are what journald, syslog, dmesg, logcat, Docker, Kubernetes, loggers and Markdown put in front.
"""

from __future__ import annotations

import re

# Colours as ESC, and as what syslog daemons, `cat -v` and quoted strings make of ESC.
_ANSI = re.compile(r"(?:\x1b|#033|\^\[|\\x1b|\\033|\\u001b)(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")
_STAMP = re.compile(
    r"""(?x)
    \d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:\s?(?:Z|[+-]\d\d:?\d\d))?
    | \d{4}/\d\d/\d\d[ ]\d\d:\d\d:\d\d
    | \d\d-\d\d[ ]\d\d:\d\d:\d\d\.\d{1,6}
    | (?:[A-Z][a-z]{2}[ ])?[A-Z][a-z]{2}[ ]{1,2}\d{1,2}[ ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[ ]\d{4})?
    | (?P<uptime>\[\s*\d{1,10}\.\d{1,9}\](?:\[[^\]]{1,20}\])?)
    | \[(?=[^\]]*\d\d:\d\d)[^\]]{5,40}\]
    | \d\d:\d\d:\d\d(?:[.,]\d{1,9})?
    """
)
_HOST = re.compile(
    r"\s+(?![EWIDT] |(?:DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL) )[\w.-]{1,64} [\w./@-]{1,64}(?:\[\d{1,10}\])?: "
)
_OTHER = re.compile(
    r"""(?x)
    \s+
    | [>*+|\#$\u2022-]+\s+
    | [`'"]+
    | <\d{1,3}>
    | [\w./@-]{1,64}\[\d{1,10}\]:\s
    | kernel:\s
    | [\w.-]{1,64}\s{1,40}\|\s
    | (?:stdout|stderr)\s[FP]\s
    | \d{1,7}\s{1,8}\d{1,7}\s(?=[VDIWEF]\s)
    | \d{1,7}-\d{1,7}(?:/[\w.?]{1,80})?\s{1,4}(?=[VDIWEF]/)
    | \{"log":"
    | \[?(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\]?[\s:|-]+
    | rk_gemma_runtime\.library:\s
    """
)
_MOST_PREFIXES = 12
# Docker's json-file driver wraps a line, and a quoted one ends in its escaped end.
_TAIL = re.compile(r"(?:\\r)?\\n(?:\"(?:,\"stream\":.{0,200})?|')?\}?\s*$")
# A line that begins a message of its own, so it does not go on with the one above.
_BEGINS = re.compile(r"[EWIDTF][ /]|RKNPU|rk(?:llm|nn)_|rkllm\b|\[|error|warning|main:", re.IGNORECASE)

# What was typed or answered in a chat; the words behind it are about anything.
_SPEAKER = re.compile(r"(?:user|human|you|robot|assistant|bot|ai|question|answer|[QA]) ?[:\uff1a] ?", re.IGNORECASE)
# The library may print into the middle of an answer.
_LIBRARY = re.compile(r"\b[EWI][ /](?:rkllm|RKNN)|\(core dumped\)|\bggml_\w|terminate called", re.IGNORECASE)
# A crash is not told in a line that ends in a full stop.
_SENTENCE = re.compile(r"\S+\s+\S+\s+\S.*[.?!\u3002\uff1f]['\")]?$|.{4,}[\u3002\uff1f]$")
_MOST_LAST_WORDS = 25  # of a shell, behind an answer that did not end its line
_ARTICLE = re.compile(r"\b(?:an?|the|of|is|are|called|any|no|or|and) $", re.IGNORECASE)

# The next line is the answer: how the program ended, or whether the device tree has a node switched on.
ASKED_FOR_STATUS = ("echo $?", "/status")


def clean(raw: bytes) -> str:
    """Clean a line: printable text without colours and control characters."""
    text = raw.decode("utf-8", errors="replace")
    if "\x1b" in text or "[" in text:
        text = _ANSI.sub("", text)
    return _CONTROL.sub(" ", text).strip()


def without_prefix(text: str) -> str:
    """Cut off what was put in front of the program's own text, as far as that can be told."""
    at = 0
    for _ in range(_MOST_PREFIXES):
        found = _STAMP.match(text, at)
        if found is not None:
            at = found.end()
            host = None if found["uptime"] else _HOST.match(text, at)  # the kernel does not name its host
            at = host.end() if host else at
            continue
        found = _OTHER.match(text, at)
        if found is None:
            break
        at = found.end()
    return _TAIL.sub("", text[at:]).rstrip("`'\" ")


def only_talk(text: str, at: int) -> bool:
    """Whether what begins at `at` is a word in a sentence of a chat, and not what a program printed there."""
    before = text[:at]
    if not _SPEAKER.match(without_prefix(text)) or not text[at : at + 1].isalpha() or _LIBRARY.search(text):
        return False
    spoken = _SPEAKER.search(before)
    if spoken is None or not before[spoken.end() :].strip():
        return spoken is not None and _SENTENCE.match(text, at) is not None
    if _SENTENCE.match(text, spoken.end()):
        return True
    if before[-1] != " ":
        return before[-1] in "'\"`("
    return text[at].islower() or len(text) - at > _MOST_LAST_WORDS or _ARTICLE.search(before) is not None


def goes_on(body: str, following: str) -> bool:
    """Whether `following` (a line without its prefix) may be the rest of `body`, wrapped by whoever quoted it."""
    long = len(body) >= 20 or body.endswith(ASKED_FOR_STATUS)
    return bool(following) and long and not _BEGINS.match(following)

"""How logs tell a signal: by number, by name, and by a shell's word for it in any language.

Both functions return the texts to find a line by and the regex to hold against it.
"""

from __future__ import annotations

NAMES = {4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 11: "SEGV", 31: "SYS"}
# What stands before an exit code. The last is the prompt's question, with the answer on the next line.
_EXIT = (
    r"(?:exit(?:ed)?|code|status|\brc|\*\*\* .{0,80}\berror|ERR! errno|退出码|退出代码|返回码|返回值|終了コード"
    r"|код (?:выхода|завершения)|code de (?:sortie|retour)|código de (?:salida|saída)|codice di uscita|rückgabewert"
    r"|종료 코드|kod wyjścia|[✗✘✖]|echo \$\?)"
    r"(?:\W{0,2}(?:code|status|value|with|was|is|error|为|是|non-?zero)){0,3}\W{0,8}"
)
_BEFORE_CODE = (
    *("ode", "atus", "xit", "xited", "with", " rc", "] error", "err! errno"),
    *("退出码", "退出代码", "返回码", "返回值", "コード"),
    *("выхода", "завершения", "sortie", "retour", "salida", "saída", "uscita", "rückgabewert", "코드", "wyjścia"),
    *("✗", "✘", "✖"),
)
_BETWEEN = ("", " ", ": ", "=", " = ", " (", ":", ":    ", '":', '": ', " '", "\uff1a", "为", "为 ", " was ", " is ")
_NEGATIVE = r"(?:exit ?code|return ?code|exited with(?: code)?|(?<!init )(?<!run )returned)\W{{0,4}}?-{}\b"
_BEFORE_NEGATIVE = ("ode -", "ode=-", "ode: -", "with -", "returned -")
_TOLD = (
    r"(?:killed|terminated|died|interrupted|caught|got|received|fatal|uncaught|unhandled|crashed|\bby|\bon|\bwith)"
    r"(?: (?:by|with|on|from|due to|a|fatal)){{0,2}}[ (]{{1,2}}signal:? ?{}\b"
)
# What a shell puts before its word: a job, a script's line, its own name, a process.
_SHELL = (
    r"^(?:\[\d{1,4}\]\s{0,3}[+-]?\s{1,12}(?:\d{1,8}\s{1,8}[+-]?\s{0,2})?"
    r"|\S{1,200}\s?[:\uff1a]\s?(?:[^\s\d:\uff1a]{1,12}\s?)?\d{1,6}(?:\s?[^\s\d:\uff1a]{1,6})?\s?[:\uff1a]\s{0,8}(?:\d{1,8}\s{1,4})?"
    r"|-?(?:zsh|bash|dash|ksh|ash|csh|tcsh|sh|fish|busybox)\s?[:\uff1a]\s{0,4}(?:\d{1,8}\s{1,4})?"
    r"|\d{1,8}\s{1,4})?"
)
_END = r"(?:$|[.!。]$|: \d{1,2}$|\s{2,}\S|\s{0,3}[(\uff08]|\s(?:\./|/|python|sudo|llm|rkllm))"
# A progress bar that the word was glued to.
_GLUED = r"(?:\]|%|s/it|it/s|\d/\d{1,6})\s{0,3}"


def signal_pattern(number: int) -> tuple[tuple[str, ...], str]:
    """Exit codes (128 + number and -number), `signal 11`, SIGSEGV, systemd's status=11/SEGV."""
    name, code = NAMES[number], 128 + number
    forms = (
        rf"\bSIG{name}\b|\bstatus={number}/|\bsig(?:nal)?=(?:{name}|{number})\b"
        rf"|\bsignal: {number} \({name}\)",
        rf"{_EXIT}{code}(?![\w%]|\.\d)",
        _NEGATIVE.format(number),
        _TOLD.format(number),
    )
    tens = str(code)[:2]
    needles = (
        *(f"sig{name.lower()}", f"status={number}/", f"sig={number}", f"nal={number}", f"nal={name.lower()}"),
        *(f"signal {number}", f"signal: {number}", "echo $?"),
        *(before + between + tens for before in _BEFORE_CODE for between in _BETWEEN if _usual(before, between)),
        *_BEFORE_NEGATIVE,
    )
    return needles, "|".join(forms)


def _usual(before: str, between: str) -> bool:
    """Whether the two go together; every text costs a search."""
    if between in {" ", ": "}:
        return True
    if not before.isascii() or not between.isascii():
        return before[0] in "退返终コ" and between in {"", "\uff1a", "为", "为 "}
    if between.strip() in {"was", "is"}:
        return before in {"ode", "atus"}
    return between != "" and before in {"ode", "atus", "xit", "xited", " rc"}


def word_pattern(words: list[str]) -> tuple[tuple[str, ...], str]:
    """Return a shell's words for a signal, where a shell says them: alone, or before the command."""
    told = "|".join(words)
    needles = tuple(_needle(word) for word in words)
    return needles, rf"{_SHELL}(?:{told}){_END}|^.{{0,300}}{_GLUED}(?:{told})$"


def _needle(word: str) -> str:
    """Return the part of a word that bytes in lower case find: only ASCII is lowered there."""
    first = word[0]
    return (word if first.isascii() or first == first.lower() else word[1:]).lower()

"""The simulator through plain ctypes, declared from the measured ABI tables alone."""

from __future__ import annotations

import ctypes as C
import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCALARS: dict[str, Any] = {
    "int": C.c_int, "int8_t": C.c_int8, "uint8_t": C.c_uint8, "int32_t": C.c_int32, "uint32_t": C.c_uint32,
    "uint64_t": C.c_uint64, "size_t": C.c_size_t, "float": C.c_float, "bool": C.c_bool, "void": None,
}  # fmt: skip
NORMAL, WAITING, FINISH, ERROR, HIDDEN_1_1 = range(5)
GENERATE, GET_HIDDEN, GET_LOGITS = range(3)
INPUT_TOKEN = 1


class Abi:
    """ctypes classes, callback types and the loaded functions of one layout."""

    def __init__(self, table: Path, library: Path | None) -> None:
        self.table = json.loads(table.read_text())
        self.types: dict[str, Any] = {}
        self.result_type = self.callback("LLMResultCallback")
        self.lib = C.CDLL(str(library)) if library else None
        for name, function in self.table["functions"].items():
            if self.lib:
                entry = getattr(self.lib, name)
                entry.argtypes = [self.ctype(p["type"]) for p in function["params"]]
                entry.restype = self.ctype(function["returns"])

    def ctype(self, name: str) -> Any:
        if array := re.fullmatch(r"(.*)\[(\d+)\]", name):
            return self.ctype(array[1]) * int(array[2])
        if name in SCALARS:
            return SCALARS[name]
        if name.replace("const ", "") in ("char *", "void *", "float *", "int *", "int32_t *"):
            return C.c_void_p
        if name.endswith("*"):
            return C.c_void_p if name.startswith("LLM") else C.POINTER(self.ctype(name[:-1].strip()))
        if name in self.table["typedefs"]:
            return C.c_void_p
        if name in self.table["enums"]:
            return C.c_int
        return self.callback(name) if name in self.table["callbacks"] else self.struct(name)

    def callback(self, name: str) -> Any:
        if name not in self.types:
            info = self.table["callbacks"][name]
            parts = [self.ctype(p["type"]) for p in info["params"]]
            self.types[name] = C.CFUNCTYPE(self.ctype(info["returns"]), *parts)
        return self.types[name]

    def struct(self, name: str) -> Any:
        if name not in self.types:
            self.types[name] = self.record(name, self.table["structs"][name]["fields"], C.Structure)
        return self.types[name]

    def record(self, name: str, fields: Sequence[dict[str, Any]], base: Any) -> Any:
        members, anonymous = [], []
        for index, f in enumerate(fields):
            inner = {"union": C.Union, "struct": C.Structure}.get(f["kind"]) if "fields" in f else None
            kind = self.record(f"{name}_{index}", f["fields"], inner) if inner else self.ctype(f["type"])
            members.append((f["name"] or f"_u{index}", kind))
            anonymous += [] if f["name"] else [f"_u{index}"]
        return type(name, (base,), {"_anonymous_": anonymous, "_fields_": members})


@dataclass
class Run:
    """What one rkllm_run gave back."""

    returned: int = 0
    states: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    texts: list[bytes | None] = field(default_factory=list)
    values: NDArray[np.float32] | None = None
    perf: Any = None

    @property
    def tokens(self) -> list[int]:
        return [i for i, s in zip(self.ids, self.states, strict=True) if s in (NORMAL, WAITING)]


class Handle:
    """One initialised handle; `returned` is what rkllm_init answered."""

    def __init__(self, abi: Abi, model: Path | str, **params: Any) -> None:
        self.abi, self.current = abi, Run()
        self.on_token: Callable[[Run], int] | None = None
        lib: Any = abi.lib
        param = lib.rkllm_createDefaultParam()
        self.path = C.create_string_buffer(str(model).encode())
        param.model_path = C.addressof(self.path)
        param.max_context_len, param.temperature, param.repeat_penalty = 128, 0.0, 1.0
        for name, value in params.items():
            setattr(param, name, value)
        self.callback = abi.result_type(self.receive)
        self.handle = C.c_void_p()
        third = self.callback
        if "RKLLMCallback" in abi.table["structs"]:
            self.callbacks = abi.struct("RKLLMCallback")(result_callback=self.callback)
            third = C.byref(self.callbacks)
        self.returned = lib.rkllm_init(C.byref(self.handle), C.byref(param), third)

    def receive(self, result: Any, userdata: Any, state: int) -> int:
        run, r = self.current, result.contents
        run.states.append(state)
        run.ids.append(r.token_id)
        run.texts.append(C.string_at(r.text) if r.text else None)
        for name, at, width in (("last_hidden_layer", "hidden_states", "embd_size"),
                                ("logits", "logits", "vocab_size")):  # fmt: skip
            part = getattr(r, name, None)
            if part is not None and getattr(part, at):
                size = part.num_tokens * getattr(part, width)
                data = np.ctypeslib.as_array((C.c_float * size).from_address(getattr(part, at)))
                run.values = data.reshape(part.num_tokens, -1).copy()
        if state == FINISH and hasattr(r, "perf"):
            run.perf = {name: getattr(r.perf, name) for name, _ in r.perf._fields_}
        return self.on_token(run) if self.on_token and state in (NORMAL, WAITING) else 0

    def run(self, ids: Sequence[int], *, mode: int = GENERATE, new: int = 0, keep: int = 0,
            sampling: dict[str, float] | None = None, asynchronous: bool = False) -> Run:  # fmt: skip
        abi: Any = self.abi
        self.current = Run()
        tokens = (C.c_int32 * max(1, len(ids)))(*ids)
        request = abi.struct("RKLLMInput")(input_type=INPUT_TOKEN)
        request.token_input.input_ids, request.token_input.n_tokens = C.addressof(tokens), len(ids)
        infer = abi.struct("RKLLMInferParam")(mode=mode)
        if hasattr(infer, "keep_history"):
            infer.keep_history = keep
        if hasattr(infer, "max_new_tokens"):
            infer.max_new_tokens = new
        if sampling:
            neutral = {"temperature": 1.0, "top_p": 1.0, "repeat_penalty": 1.0}
            options = abi.struct("RKLLMSamplingParam")(**{**neutral, **sampling})
            infer.sampling_params = C.pointer(options)
        call = abi.lib.rkllm_run_async if asynchronous else abi.lib.rkllm_run
        run = self.current
        run.returned = call(self.handle, C.byref(request), C.byref(infer), None)
        return run

    def call(self, name: str, *arguments: Any) -> int:
        lib: Any = self.abi.lib
        return int(getattr(lib, f"rkllm_{name}")(self.handle, *arguments))

    def in_thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle:
            self.call("destroy")

"""The simulator through plain ctypes, declared from the measured ABI tables alone."""

from __future__ import annotations

import ctypes as C
import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from simrequest import Given, infer_param, input_array

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
DISTINCT = {"top_k": 1, "presence_penalty": 1000.0}  # greedy, and never the same token twice


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
    """What one rkllm_run gave back for one sequence."""

    returned: int = 0
    states: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    texts: list[bytes | None] = field(default_factory=list)
    values: NDArray[np.float32] | None = None
    perf: Any = None
    kept: Any = None  # what an asynchronous run still reads

    @property
    def tokens(self) -> list[int]:
        return [i for i, s in zip(self.ids, self.states, strict=True) if s in (NORMAL, WAITING) and i >= 0]

    @property
    def text(self) -> str:
        return b"".join(text for text in self.texts if text).decode()


class Handle:
    """One initialised handle; `returned` is what rkllm_init answered."""

    def __init__(
        self, abi: Abi, model: Path | str, *, extend: dict[str, int] | None = None,
        answers: dict[str, Any] | None = None, texts: dict[str, str] | None = None, **params: Any,
    ) -> None:  # fmt: skip
        self.abi, self.currents = abi, [Run()]
        self.on_token: Callable[[Run], int] | None = None
        self.on_values: Callable[[Run], int] | None = None
        lib: Any = abi.lib
        param = lib.rkllm_createDefaultParam()
        self.kept = [C.create_string_buffer(text.encode()) for text in (str(model), *(texts or {}).values())]
        for name, buffer in zip(("model_path", *(texts or {})), self.kept, strict=True):
            setattr(param, name, C.addressof(buffer))
        param.max_context_len, param.temperature, param.repeat_penalty = 128, 0.0, 1.0
        param.max_new_tokens = 5000  # a full context shifts: without a bound a run may never end
        for name, value in params.items():
            setattr(param, name, value)
        for name, value in (extend or {}).items():
            setattr(param.extend_param, name, value)
        self.batch = (extend or {}).get("n_batch", 1)
        self.callback = abi.result_type(self.receive)
        self.handle = C.c_void_p()
        third = self.callback
        if "RKLLMCallback" in abi.table["structs"]:
            self.callbacks = abi.struct("RKLLMCallback")(result_callback=self.callback, **(answers or {}))
            third = C.byref(self.callbacks)
        self.returned = lib.rkllm_init(C.byref(self.handle), C.byref(param), third)

    @property
    def current(self) -> Run:
        return self.currents[0]

    def receive(self, result: Any, userdata: Any, state: int) -> int:
        for run, index in zip(self.currents, range(self.batch), strict=False):
            self.note(run, result[index], state)
        run = self.currents[0]
        if run.values is not None and self.on_values and state != FINISH:
            return self.on_values(run)
        return self.on_token(run) if self.on_token and state in (NORMAL, WAITING) else 0

    def note(self, run: Run, r: Any, state: int) -> None:
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

    def run(self, what: Sequence[int] | Given, *, asynchronous: bool = False, **options: Any) -> Run:
        """One sequence; options are those of simrequest.infer_param."""
        return self.run_all([what], asynchronous=asynchronous, **options)[0]

    def run_all(
        self, inputs: Sequence[Sequence[int] | Given], *, asynchronous: bool = False, **options: Any
    ) -> list[Run]:
        abi: Any = self.abi
        runs = self.currents = [Run() for _ in inputs]
        requests, kept = input_array(abi, [w if isinstance(w, Given) else Given(ids=w) for w in inputs])
        infer, more = infer_param(abi, **options)
        runs[0].kept = (requests, infer, kept, more)
        call = abi.lib.rkllm_run_async if asynchronous else abi.lib.rkllm_run
        returned = call(self.handle, C.cast(requests, C.POINTER(abi.struct("RKLLMInput"))), C.byref(infer), None)
        for run in runs:
            run.returned = returned
        return runs

    def call(self, name: str, *arguments: Any) -> int:
        lib: Any = self.abi.lib
        return int(getattr(lib, f"rkllm_{name}")(self.handle, *arguments))

    def sizes(self) -> list[int]:
        """rkllm_get_kv_cache_size."""
        sizes = (C.c_int * self.batch)()
        assert self.call("get_kv_cache_size", C.cast(sizes, C.c_void_p)) == 0
        return list(sizes)

    def clear(self, ranges: Sequence[tuple[int, int]] | None = None, *, keep_system: bool = False) -> int:
        """rkllm_clear_kv_cache with as many arguments as the layout has."""
        if len(self.abi.table["functions"]["rkllm_clear_kv_cache"]["params"]) == 2:
            return self.call("clear_kv_cache", int(keep_system))
        ends = [(C.c_int * len(ranges))(*column) for column in zip(*ranges, strict=True)] if ranges else [None, None]
        return self.call("clear_kv_cache", int(keep_system), *(C.cast(e, C.c_void_p) for e in ends))

    def texts(self, name: str, *texts: str | None) -> int:
        """A function that takes strings."""
        buffers = [None if text is None else C.create_string_buffer(text.encode()) for text in texts]
        return self.call(name, *(None if b is None else C.addressof(b) for b in buffers))

    def load_lora(self, path: Path | str | None, name: str | None, scale: float = 1.0) -> int:
        buffers = [None if text is None else C.create_string_buffer(str(text).encode()) for text in (path, name)]
        where = [None if b is None else C.addressof(b) for b in buffers]
        adapter = self.abi.struct("RKLLMLoraAdapter")(*where, scale)
        return self.call("load_lora", C.byref(adapter))

    def in_thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle:
            self.call("destroy")

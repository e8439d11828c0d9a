"""Stand-ins for the wheels of rkllm-toolkit, built from what its documents and logs say of each release.

They have that release's signatures, prints, return codes and failures, and write an `.rkllm` with its trailer. What
one does beyond is told by a `standin` key in the model's config.json: `record`, a file for the calls; `fail`, a
failure by name; `hang`, a step that never ends, after `touch` was written.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSIONS = ("1.1.0", "1.1.4", "1.2.1", "1.2.3", "1.3.0", "1.3.1")
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
KIT = Path(__file__).resolve().parents[1] / "runtime" / "rkllmkit.py"
FIRST, LATER, LAST = (1, 1, 0), (1, 2, 0), (1, 3, 0)
BUILT = (
    "do_quantization=True, optimization_level=1, quantized_dtype='w8a8', quantized_algorithm='normal',"
    " target_platform='rk3588', num_npu_core=3, extra_qparams=None, dataset=None, hybrid_rate=0"
)
LOAD = {
    FIRST: "model, model_lora=None, device='cpu'",
    LATER: "model, model_lora=None, device='cpu', dtype='float32', custom_config=None, load_weight=True",
}
BUILD = {FIRST: BUILT, LATER: f"{BUILT}, max_context=4096"}
EXPORT = {FIRST: "export_path", LAST: "export_path, export_tokenizer=True, export_embedding=True"}

API = """
import json, os, subprocess, sys, time

VERSION = "{version}"
RELEASE = tuple(int(n) for n in VERSION.split("."))


def say(text):
    print(text, flush=True)


def bar(name, total):
    for n in range(total + 1):
        print(f"\\r{{name}}: {{100 * n // total:3d}}%|###| {{n}}/{{total}} [00:00<00:00]", end="", file=sys.stderr,
              flush=True)
    print(file=sys.stderr)


class RKLLM:
    def __init__(self):
        say(f"INFO: rkllm-toolkit version: {{VERSION}}")
        self.plan = {{}}

    def load_huggingface(self, {load}):
        with open(os.path.join(model, "config.json")) as file:
            self.config = json.load(file)
        self.plan = self.config.get("standin", {{}})
        self.lora = model_lora
        self.record("load_huggingface", dict(locals()))
        return self.act("load")

    def build(self, {build}):
        self.record("build", dict(locals()))
        if "keep_dataset" in self.plan:
            with open(dataset) as file, open(self.plan["keep_dataset"], "w") as kept:
                kept.write(file.read())
        self.cores, self.algorithm, self.quantised = num_npu_core, quantized_algorithm, do_quantization
        self.context = dict(locals()).get("max_context", 4096)
        say("Generating train split: 21 examples")
        bar("Building model", 8)
        if optimization_level:
            bar("Optimizing model", 4)
        say("INFO: Setting token_id of bos to 2")
        bar("Converting model", 4)
        say(f"INFO: Setting max_context_limit to {{self.context}}")
        return self.act("build")

    def export_rkllm(self, {export}):
        self.record("export_rkllm", dict(locals()))
        say("INFO: Exporting the model, please wait ....")
        for n in (1, 2, 3):
            print(f"\\r[====>    ] {{n}}/3 ({{33 * n}}%)", end="", flush=True)
        code = self.act("export")
        if code != 0 or self.plan.get("fail") == "no_file":
            return code
        self.write(export_path)
        if self.lora or "_r" in self.algorithm:
            self.write(export_path.replace(".rkllm", "_lora.rkllm"))
        say(f"INFO: Model has been saved to {{export_path}}!")
        return 0

    def record(self, step, arguments):
        arguments.pop("self"), arguments.pop("file", None)
        if "record" in self.plan:
            with open(self.plan["record"], "a") as file:
                file.write(json.dumps([step, arguments]) + "\\n")
        folder = arguments.get("model")
        if folder and "record" in self.plan:
            with open(self.plan["record"] + ".files", "w") as file:
                json.dump(sorted(os.listdir(folder)), file)

    def act(self, step):
        if self.plan.get("hang") == step:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            with open(self.plan["touch"], "w") as file:
                file.write(f"{{os.getpid()}} {{child.pid}}")
            time.sleep(600)
        return FAILURES.get((self.plan.get("fail"), step), lambda: 0)()

    def write(self, path):
        from rkllm import rkllmkit as kit
        c = self.config
        arch = c["model_type"]
        sizes = {{"vocab_size": "vocab_size", "embedding_length": "hidden_size", "block_count": "num_hidden_layers",
                 "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
                 "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim"}}
        lie = self.plan.get("lie", {{}})
        keys = kit.gemma_keys(arch, c["vocab_size"], **{{f"{{arch}}.{{k}}": ("u32", c[v]) for k, v in sizes.items()}})
        keys["rkllm.core_num"] = ("u32", lie.get("cores", self.cores))
        keys["rkllm.max_context"] = ("u32", lie.get("context", self.context))
        keys["general.file_type"] = ("u32", lie.get("file_type", 7 if self.quantised else 1))
        keys["rkllm.version"] = ("string", lie.get("version", VERSION))
        if RELEASE < (1, 2, 0):
            del keys["rkllm.version"]
        if RELEASE < (1, 3, 0):
            del keys["rkllm.has_embedding"], keys["rkllm.has_tokenizer"]
        tensors = (("token_embd.weight", (c["hidden_size"], c["vocab_size"])),)
        trailer = "rkllm-toolkit version: " + lie.get("version", VERSION)
        data = kit.Rkllm(keys, tensors=tensors, trailer=trailer.encode()).data()
        with open(path, "wb") as file:
            file.write(data[:lie.get("cut", len(data))])


def error(text, code=-1):
    def fail():
        say(text)
        return code
    return fail


def die(number):
    def fail():
        os.kill(os.getpid(), number)
    return fail


def leave():
    raise SystemExit(3)


LOADING = "ERROR: Catch exception when loading model: "
FAILURES = {{
    ("not_support", "load"): error("ERROR: Not support Gemma2ForCausalLM!"),
    ("catch_load", "load"): error(LOADING + "'GemmaConfig' object has no attribute 'x'"),
    ("cuda_memory", "load"): error(LOADING + "CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("none", "build"): error("ERROR: Catch exception when building model: boom", None),
    ("true", "build"): error("nothing said", False),
    ("dtype", "build"): error("ERROR: target_platform: rk3588 not support quantized_dtype: w8a8!"),
    ("lora_names", "build"): error("ERROR: Catch exception when optimizing model: 'mlp.down_proj'"),
    ("group", "build"): error(
        "ERROR: The tensor shape of this model can not be evenly divided into group_size[128], "
        "please change the quantized_dtype!"),
    ("tensor_sizes", "build"): error(
        "The size of tensor a (2048) must match the size of tensor b (4096) at non-singleton dimension 0"),
    ("tokenizer", "load"): error(LOADING + "expected value at line 1 column 1"),
    ("narrow", "export"): error("ERROR: dimension of k/v must be greater than or equal to 96"),
    ("convert", "export"): error("ERROR: Catch exception when converting model!"),
    ("killed", "build"): die(9),
    ("illegal", "build"): die(4),
    ("exits", "build"): leave,
}}
"""


def build_wheel(
    folder: Path,
    version: str,
    *,
    tag: str = TAG,
    machine: str = "linux_x86_64",
    name: str = "",
    requires: Sequence[str] = (),
    broken: str = "",
) -> Path:
    """Write a wheel; `broken` is Python that its import runs."""
    release = tuple(int(part) for part in version.split("b")[0].split("."))
    parts = {key: table[max(since for since in table if since <= max(release, (1, 1, 0)))]
             for key, table in {"load": LOAD, "build": BUILD, "export": EXPORT}.items()}  # fmt: skip
    info = f"rkllm_toolkit-{version}.dist-info"
    deps = "".join(f"Requires-Dist: {text}\n" for text in requires)
    files = {
        "rkllm/__init__.py": "",
        "rkllm/api/__init__.py": broken + "\n" + API.format(version=version.split("b")[0], **parts),
        "rkllm/rkllmkit.py": KIT.read_text(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: rkllm-toolkit\nVersion: {version}\n{deps}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}-{tag}-{machine}\n",
    }
    path = folder / (name or f"rkllm_toolkit-{version}-{tag}-{tag}-{machine}.whl")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        record = ""
        for inner, text in files.items():
            archive.writestr(inner, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{inner},sha256={digest},{len(text.encode())}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path

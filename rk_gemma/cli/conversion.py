"""Options of a conversion by Rockchip's toolkit (docs/toolkit.md)."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def _option(name: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(name, help=text, metavar=metavar, rich_help_panel="With --npu rkllm")


Toolkit = Annotated[str, _option("--toolkit", "Which one, as `toolkit list` names it; none: the newest.", "NAME")]
Cores = Annotated[int, _option("--npu-cores", "NPU cores that the file is made for, 1 to 3.")]
Level = Annotated[int, _option("--optimization-level", "0, or 1: more exact, longer to convert, may be slower.")]
Hybrid = Annotated[float, _option("--hybrid-rate", "Share of the layers in the other grouping, from 0 to below 1.")]
Algorithm = Annotated[str, _option("--algorithm", "normal, or normal_rN: with a LoRA of rank N.")]
Device = Annotated[str, _option("--device", "cpu or cuda.")]
Loading = Annotated[str, _option("--load-dtype", "float32, float16 or bfloat16.")]
Calibration = Annotated[str, _option("--calibration", "JSON lines of prompts and answers, or builtin.", "FILE")]
Words = Annotated[bool, _option("--export-tokenizer/--no-export-tokenizer", "Put it into the .rkllm.")]
Table = Annotated[bool, _option("--export-embedding/--no-export-embedding", "Put it into the .rkllm.")]
Force = Annotated[bool, _option("--force", "Convert although memory or disk do not fit.")]

"""What a plan is asked for: a model, its weight type, a context and where its buffers shall begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rk_gemma_runtime.memory.dtypes import dtype_of, find_dtype
from rk_gemma_runtime.memory.models import SIZES, find_shape, of_bundle
from rk_gemma_runtime.memory.need import Need, need_of
from rk_gemma_runtime.memory.shape import DEFAULT_CONTEXT, Shape

if TYPE_CHECKING:
    from rk_gemma_runtime.bundle import Bundle
    from rk_gemma_runtime.memory.dtypes import Dtype

CONTEXT_STEP = 32  # rkllm-toolkit takes multiples of it
MOST_CONTEXT = 16384


@dataclass(frozen=True)
class Request:
    """What shall be loaded. `limit` is the context that the file was made for (0: the model's own); `base_domain`
    the first IOMMU domain; `platform` the one it was exported for; `release` of librkllmrt; `cpu` type and bytes of
    the GGUF weights of a bundle (`bundled`), if it has them. `toolkit` made the file, `runtime` is the library's
    whole version; empty where they are not known."""

    shape: Shape
    dtype: Dtype = field(default_factory=lambda: dtype_of("w8a8"))
    context: int = DEFAULT_CONTEXT
    base_domain: int = 0
    embed_flash: bool = True
    limit: int = 0
    platform: str = "RK3588"
    release: tuple[int, int] = (1, 3)
    cpu: tuple[str, int] | None = None
    bundled: bool = False
    toolkit: str = ""
    runtime: str = ""

    @property
    def need(self) -> Need:
        """What loading it takes. Raises UsageError if the type's groups do not fit the model."""
        return need_of(self.shape, self.dtype, self.context, self.embed_flash)

    @property
    def most(self) -> int:
        """The longest context that may be asked for."""
        return self.limit or min(self.shape.context, MOST_CONTEXT)


def least_request() -> Request:
    """Make the request for the Gemma that takes the least memory."""
    return min((Request(find_shape(name)) for name in SIZES), key=lambda request: request.need.total)


def request_for(bundle: Bundle, context: int = 0, base_domain: int = 0, dtype: str = "") -> Request | None:
    """Make the request for a bundle's NPU weights; `context` 0 is the bundle's, and so is `dtype` "". None if it has
    none, or if its manifest gives no shape and weight type that are known here."""
    manifest = bundle.manifest
    shape = of_bundle(manifest)
    weights = find_dtype(dtype or manifest.npu.dtype, shape) if manifest.npu and shape else None
    if manifest.npu is None or shape is None or weights is None:
        return None
    cpu = manifest.cpu
    return Request(
        shape,
        weights,
        context or min(manifest.context, manifest.npu.max_context),
        base_domain,
        limit=manifest.npu.max_context,
        platform=manifest.npu.platform,
        cpu=(cpu.quant, manifest.cpu_bytes) if cpu else None,
        bundled=True,
        toolkit=manifest.npu.toolkit if manifest.npu.format == "rkllm" else "",
    )

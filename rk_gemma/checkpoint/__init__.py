"""Reading Gemma checkpoints in Hugging Face's format, tensor by tensor."""

from rk_gemma.checkpoint.config import ModelSpec, read_spec
from rk_gemma.checkpoint.folder import Checkpoint
from rk_gemma.checkpoint.reader import Tensor, to_float16

__all__ = ["Checkpoint", "ModelSpec", "Tensor", "read_spec", "to_float16"]

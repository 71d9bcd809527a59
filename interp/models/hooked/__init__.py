"""TransformerLens models as Hugging Face models of our own: the same computation, proven at load."""

from interp.models.hooked.config import HookedConfig
from interp.models.hooked.convert import config_of, from_weights
from interp.models.hooked.modeling import HookedForCausalLM, HookedModel

__all__ = ["HookedConfig", "HookedForCausalLM", "HookedModel", "config_of", "from_weights"]

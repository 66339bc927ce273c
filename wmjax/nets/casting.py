"""Flax modules as functions of their parameters: they compute in the compute dtype, all around them is float32."""

import jax
import jax.numpy as jnp


def cast(tree, dtype):
    """Every leaf in a floating-point dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def make_apply(config, modules):
    """A function (params, name, *args, **kwargs): the output of the module of that name in float32.

    Args: config: with a compute_dtype; modules: flax modules by the name of their parameters.
    """

    def apply(params, name, *args, **kwargs):
        weights, args = cast((params[name], args), config.compute_dtype)
        return cast(modules[name].apply(weights, *args, **kwargs), jnp.float32)

    return apply

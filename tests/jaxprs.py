"""What a program computes, before it is compiled."""

from jax.extend.core import jaxprs_in_params


def products(jaxpr):
    """Every matrix product and convolution of a jaxpr."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield eqn
        for inside in jaxprs_in_params(eqn.params):
            yield from products(inside)

"""JAX arrays are immutable: filling one raises an error. JAX's types are accepted."""

import jax.numpy as jnp
import numpy as np
import pytest

import winit_fast as wf


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn"])
def test_arrays_are_read_only(dtype):
    array = jnp.zeros((8, 8), dtype)
    for fill in (wf.Ones().fill, wf.HeNormal().fill):
        with pytest.raises(ValueError, match="out must be writable, got a read-only"):
            fill(array)
    assert not np.asarray(array).any()


def test_types():
    assert wf.Zeros()(3, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    made = wf.LecunNormal()((8, 8), seed=0, dtype=jnp.float32)
    assert (jnp.asarray(made) == made).all()

"""The README's examples for the frameworks run as they stand, after those for NumPy."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_examples():
    names = {}
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(example, names)
    wf = names["wf"]
    expected = wf.GlorotUniform()((784, 256), seed=0, name="dense.kernel")
    np.testing.assert_array_equal(np.asarray(names["layer"].kernel), expected)
    expected = wf.LecunNormal()((784, 256), seed=0, name="dense.kernel")
    np.testing.assert_array_equal(np.asarray(names["kernel"]), expected)

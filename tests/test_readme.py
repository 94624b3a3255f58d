"""The README's examples run as they stand."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_examples():
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 5
    names: dict[str, object] = {}
    for example in examples:
        if not re.search("import (torch|jax|keras)", example):  # the frameworks' tests run those
            exec(example, names)

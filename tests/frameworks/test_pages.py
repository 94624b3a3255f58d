"""The examples for the frameworks in README.md and the guides run as they are written."""

import numpy as np
import pages
import pytest


def test_readme():
    names = pages.run(pages.ROOT / "README.md")
    wf = names["wf"]
    expected = wf.GlorotUniform()((784, 256), seed=0, name="dense.kernel")
    np.testing.assert_array_equal(np.asarray(names["layer"].kernel), expected)
    expected = wf.LecunNormal(distribution="truncated_normal")((784, 256), seed=0)
    np.testing.assert_array_equal(np.asarray(names["kernel"]), expected)
    expected = wf.HeNormal()((4096, 1024), seed=0, name="mlp.up", dtype="bfloat16")
    np.testing.assert_array_equal(np.asarray(names["w"]), expected)


# from the way in which Keras saves variables
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", pages.GUIDES, ids=lambda page: page.stem)
def test_guide(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pages.examples(page)
    pages.run(page)

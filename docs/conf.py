"""Sphinx: `make docs` builds these pages in build/docs."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext.autodoc.mock import _MockObject

import winit_fast
from winit_fast.base.frameworks import FRAMEWORKS

project = "winit_fast"
author = "the winit_fast developers"
version = release = winit_fast.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nitpicky = True  # a reference that leads nowhere is an error

# Docstrings: types stand in the text, single backquotes are references, and members are listed
# where a page says so.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_mock_imports = list(FRAMEWORKS)  # the adapters' pages need no framework
for method in "__enter__", "__exit__", "__or__", "__ror__":  # a context, a union of types
    setattr(_MockObject, method, lambda self, *others: self)
nitpick_ignore_regex = [("py:obj", rf"(numpy|flax|Tensor|{'|'.join(FRAMEWORKS)})\..*")]
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"winit_fast {release}"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False
html_math_renderer = "mathml"


def inline_math(writer, node):
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def display_math(writer, node):
    writer.body.append(f"<div class='math'>{tex2mathml(node.astext(), as_block=True)}</div>")
    raise nodes.SkipNode


def setup(app):
    """Formulas as MathML, which browsers draw themselves: pages need no script and no network."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))

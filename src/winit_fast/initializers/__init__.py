"""The schemes. Importing this package registers all of them for `get`."""

from winit_fast.initializers.computed import Computed
from winit_fast.initializers.constants import Constant, Identity, Ones, Zeros
from winit_fast.initializers.dirac import Dirac
from winit_fast.initializers.elementwise import RandomNormal, RandomUniform, TruncatedNormal
from winit_fast.initializers.expression import Expression, Operand
from winit_fast.initializers.gains import gain, gradient_gain
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.parts import Part, Parts
from winit_fast.initializers.pretrained import Pretrained
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.initializers.registry import get
from winit_fast.initializers.rows_like import RowsLike
from winit_fast.initializers.scaled import Scaled
from winit_fast.initializers.sparse import Sparse
from winit_fast.initializers.stft import STFT
from winit_fast.initializers.variance_scaling import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    XavierSimple,
)

__all__: list[str] = [
    "STFT",
    "Computed",
    "Constant",
    "DeltaOrthogonal",
    "Dirac",
    "Elementwise",
    "Expression",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Operand",
    "Orthogonal",
    "Part",
    "Parts",
    "Pretrained",
    "RandomNormal",
    "RandomUniform",
    "RowsLike",
    "Scaled",
    "Sparse",
    "TruncatedNormal",
    "VarianceScaling",
    "XavierSimple",
    "Zeros",
    "gain",
    "get",
    "gradient_gain",
]

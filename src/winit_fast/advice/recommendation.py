"""The choice of a scheme for a network that is described by a few words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from winit_fast.base.arguments import optional, positive
from winit_fast.base.names import one_of, spelling, unknown
from winit_fast.initializers.activations import NAMES
from winit_fast.initializers.constants import Zeros
from winit_fast.initializers.elementwise import RandomNormal
from winit_fast.initializers.gains import gain
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.scaled import Scaled
from winit_fast.initializers.variance_scaling import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
)

TASKS = ("mlp", "cnn", "rnn", "transformer")
DISTRIBUTIONS = ("normal", "uniform")

DEEP, VERY_DEEP = 20, 100
"""Numbers of layers from which a network without normalisation counts as deep, and as very deep."""

_RECTIFIERS = {"relu", "relu6", "leaky_relu", "prelu"}
_SATURATING = {"tanh", "sigmoid", "softmax", "linear", "identity", "softsign", "hard_tanh",
               "hard_sigmoid", "tanh_exact", "sigmoid_exact"}  # fmt: skip

GLOROT = "Glorot and Bengio, AISTATS 2010"
HE = "He et al., ICCV 2015"
SELU = "Klambauer et al., NeurIPS 2017"
SAXE = "Saxe et al., ICLR 2014"
PENNINGTON = "Pennington et al., NeurIPS 2017"
XIAO = "Xiao et al., ICML 2018"
LE = "Le et al., 2015"
LSUV = "Mishkin and Matas, ICLR 2016"
FIXUP = "Zhang et al., ICLR 2019"
GOYAL = "Goyal et al., 2017"
GPT2 = "Radford et al., 2019 (GPT-2)"
GOODFELLOW = "Goodfellow et al., Deep Learning, 2016, section 8.4"
LECUN = "LeCun et al., Efficient BackProp, 1998"
GAINS = "winit_fast.gain: 1 / sqrt(E[f(z)^2])"
YOSINSKI = "Yosinski et al., NeurIPS 2014"


@dataclass(frozen=True)
class Reason:
    """Why a scheme is chosen, or another one is not.

    Attributes
    ----------
    text : str
    source : str
        The paper, or the function that computes the number.
    """

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.text} [{self.source}]"


@dataclass(frozen=True)
class Recommendation:
    """The schemes for a network: see `recommend`, which makes it.

    Attributes
    ----------
    initializer : Initializer
        For the weights of layers.
    gain : float
        By which a linear layer's deviation is multiplied, relative to 1 / sqrt(fan_in); 1 for
        schemes that have no gain.
    reasons : tuple of Reason
    instead_of : tuple of Reason
        Other schemes, each with the reason not to use it here.
    last_of_branch : Initializer or None
        For the last layer of every residual branch, if the network has some.
    bias : Initializer
        For biases.
    rules : dict of str to Initializer
        For `winit_fast.torch.init_`, where the scheme of a weight follows from torch's names: the
        weights of recurrent layers.
    then : str
        The function to call after the weights have been drawn, or "".
    """

    initializer: Initializer
    gain: float
    reasons: tuple[Reason, ...]
    instead_of: tuple[Reason, ...] = ()
    last_of_branch: Initializer | None = None
    bias: Initializer = field(default_factory=Zeros)
    rules: Mapping[str, Initializer] = field(default_factory=dict)
    then: str = ""

    def __str__(self) -> str:
        lines = [f"weights: {self.initializer}"]
        lines += [f"{pattern}: {scheme}" for pattern, scheme in self.rules.items()]
        if self.last_of_branch is not None:
            lines.append(f"last layer of a residual branch: {self.last_of_branch}")
        lines.append(f"biases: {self.bias}")
        if self.then:
            lines.append(f"then: {self.then}")
        lines += ["because", *(f"  {reason}" for reason in self.reasons)]
        lines += ["instead of", *(f"  {reason}" for reason in self.instead_of)]
        return "\n".join(lines)


def recommend(
    activation: str = "relu",
    *,
    depth: int | None = None,
    width: int | None = None,
    task: str | None = None,
    residual: bool = False,
    norm: bool = False,
    distribution: str = "normal",
    param: float | None = None,
    pretrained: bool = False,
) -> Recommendation:
    """Choose a scheme by activation, depth and task.

    Parameters
    ----------
    activation : str
        As in `winit_fast.gain`, or "softmax".
    depth : int, optional
        Number of layers with weights; with residual connections, number of residual branches.
    width : int, optional
        Number of units of a layer, for the numbers in the reasons.
    task : {"mlp", "cnn", "rnn", "transformer"}, optional
    residual : bool
        Whether layers are bypassed by residual connections. A transformer always has them.
    norm : bool
        Whether layers are normalised. A transformer always is.
    distribution : {"normal", "uniform"}
        The form of the distribution, where the scheme leaves it open.
    param : float, optional
        The activation's parameter.
    pretrained : bool
        Whether there is a trained model for a similar task.

    Returns
    -------
    Recommendation

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value.

    Notes
    -----
    ============================================ ===============================================
    network                                      scheme
    ============================================ ===============================================
    there is a trained model                     its weights, and for new tensors as below
    rnn                                          orthogonal recurrent weights, Glorot inputs
    transformer                                  N(0, 0.02^2), residual outputs / sqrt(2 depth)
    residual without normalisation               He / sqrt(depth), last layers of branches zero
    from 100 layers, neither                     orthogonal, then `winit_fast.dynamic.lsuv_`
    from 20 layers, neither                      ReLU and its variants: He; others: orthogonal
    ReLU and its variants, GELU, SiLU, ELU ...   He, with the activation's gain
    tanh, sigmoid, softmax, linear               Glorot
    SELU                                         LeCun
    ============================================ ===============================================

    Examples
    --------
    >>> found = recommend("gelu", width=512)
    >>> found.initializer, round(found.gain, 4)
    (HeNormal(nonlinearity='gelu'), 1.5335)
    >>> recommend("tanh", depth=60).initializer
    Orthogonal()
    >>> recommend("relu", depth=16, residual=True).last_of_branch
    Zeros()
    """
    name = _activation(activation)
    task = optional(lambda argument, value: one_of(argument, value, TASKS))("task", task)
    depth = optional(positive)("depth", depth)
    width = optional(positive)("width", width)
    one_of("distribution", distribution, DISTRIBUTIONS)
    for argument, value in (("residual", residual), ("norm", norm), ("pretrained", pretrained)):
        if not isinstance(value, bool):
            raise TypeError(f"{argument} must be a bool, got {value!r}")
    if param is not None:
        gain(name, param)
    if task == "rnn":
        found = _recurrent(distribution)
    elif task == "transformer":
        found = _transformer(depth, width)
    elif residual:
        found = _residual(name, param, depth, norm, distribution)
    elif depth is not None and depth >= DEEP and not norm and name != "selu":
        found = _deep(name, param, depth, task, distribution)
    else:
        found = _by_activation(name, param, distribution)
        if norm:
            found = _with_reasons(found, Reason(
                "normalisation makes a layer's output independent of the scale of its weights",
                "Ioffe and Szegedy, ICML 2015"))  # fmt: skip
    if task == "cnn" and isinstance(found.initializer, (HeNormal, HeUniform)):
        found = _with_reasons(found, Reason("convolutional networks: He, by the fan of the kernel",
                                            f"{HE}, section 2.2"))  # fmt: skip
    if pretrained:
        found = _with_reasons(
            found,
            Reason(
                "weights of a trained model are a better start than any random scheme: load what "
                "fits (winit_fast.Pretrained), and draw only new tensors, as its fallback= does",
                YOSINSKI,
            ),
        )
    return _with_reasons(found, instead_of=_rejected(width))


def _activation(activation: object) -> str:
    if not isinstance(activation, str):
        raise TypeError(f"activation must be a str, got {activation!r}")
    known = (*NAMES, "softmax")
    for name in known:
        if spelling(name) == spelling(activation):
            return name
    raise ValueError(unknown("activation", activation, known))


def _with_reasons(
    found: Recommendation, *reasons: Reason, instead_of: tuple[Reason, ...] = ()
) -> Recommendation:
    from dataclasses import replace

    return replace(found, reasons=found.reasons + reasons, instead_of=found.instead_of + instead_of)


def _by_activation(name: str, param: float | None, distribution: str) -> Recommendation:
    normal = distribution == "normal"
    if name in _SATURATING:
        scheme: Initializer = GlorotNormal() if normal else GlorotUniform()
        text = f"{name}: the variance 2 / (fan_in + fan_out) is a compromise between signals, "
        return Recommendation(
            scheme, 1.0, (Reason(text + "which need 1 / fan_in, and gradients, 1 / fan_out",
                                 f"{GLOROT}, eq. 12 and 16"),)
        )  # fmt: skip
    if name in ("selu", "selu_exact"):
        scheme = LecunNormal() if normal else LecunUniform()
        return Recommendation(
            scheme, 1.0, (Reason("selu: its fixed point of mean 0 and variance 1 needs weights of "
                                 "variance 1 / fan_in", f"{SELU}, section 2; {LECUN}"),)
        )  # fmt: skip
    he = HeNormal if normal else HeUniform
    value = gain(name, param)
    source = f"{HE}, eq. 10 and 15" if name in _RECTIFIERS else GAINS
    text = f"{name}: a gain of {value:.4g} makes up for what the activation takes from the mean "
    reasons = [Reason(text + "square of signals", source)]
    if name in ("gelu", "silu", "swish", "mish", "gelu_tanh", "quick_gelu", "hard_swish"):
        reasons.append(
            Reason(
                "small deviations from the mean square grow from layer to layer with this "
                "activation, so a deep network needs normalisation as well",
                "winit_fast.gain, notes",
            )
        )
    return Recommendation(he(nonlinearity=name, param=param), value, tuple(reasons))


def _deep(
    name: str, param: float | None, depth: int, task: str | None, distribution: str
) -> Recommendation:
    """Choose for a network without normalisation and residual connections."""
    if depth < VERY_DEEP and name in _RECTIFIERS:
        found = _by_activation(name, param, distribution)
        return _with_reasons(
            found, Reason(f"{depth} layers: with He a deep rectifier network converges where "
                          "Glorot's stops learning", f"{HE}, section 2.2, figure 3")
        )  # fmt: skip
    # At its critical point the gain of tanh is 1, since its slope at 0 is.
    critical = name in ("tanh", "tanh_exact", "softsign", "hard_tanh", "linear", "identity")
    exact = {"sigmoid": "sigmoid_exact", "selu": "selu_exact", "softmax": "linear"}.get(name, name)
    value = 1.0 if critical else gain(exact, param)
    # Equal values for 1-gains print without the gain.
    matrix = DeltaOrthogonal if task == "cnn" else Orthogonal
    scheme = matrix() if value == 1.0 else matrix(value)
    source = XIAO if task == "cnn" else f"{SAXE}; {PENNINGTON}"
    text = f"{depth} layers without normalisation: orthogonal matrices keep the norm of every "
    reasons = [Reason(text + "signal and gradient, where random ones keep it on average", source)]
    if critical:
        reasons.append(
            Reason(
                f"{name} is at its critical point with a gain of 1", "winit_fast.diagnosis.theory"
            )
        )
    then = ""
    if depth >= VERY_DEEP:
        then = "winit_fast.dynamic.lsuv_"
        text = f"{depth} layers: what is left after each layer is measured with a batch and put "
        reasons.append(Reason(text + "right, or the network gets residual connections", LSUV))
    return Recommendation(scheme, value, tuple(reasons), then=then)


def _residual(
    name: str, param: float | None, depth: int | None, norm: bool, distribution: str
) -> Recommendation:
    found = _by_activation(name, param, distribution)
    if norm:
        return _with_reasons(
            found,
            Reason(
                "residual branches with normalisation: the gain of the last normalisation of every "
                "branch may start at 0, so that a block begins as the identity",
                f"{GOYAL}, section 5.1",
            ),
        )
    scheme: Initializer = found.initializer
    text = "residual branches without normalisation add up: the last layer of each starts at 0"
    if depth is not None:
        scheme = Scaled(scheme, "L ** -(1 / 2)", {"L": depth})
        text += f", the others are {depth} ** -1/2 times as large"
    return Recommendation(
        scheme,
        found.gain,
        (*found.reasons, Reason(text, f"{FIXUP}, section 3")),
        last_of_branch=Zeros(),
    )


def _recurrent(distribution: str) -> Recommendation:
    inputs = GlorotNormal() if distribution == "normal" else GlorotUniform()
    return Recommendation(
        Orthogonal(),
        1.0,
        (
            Reason(
                "recurrent weights are applied at every step: all singular values of an orthogonal "
                "matrix are 1, so signals neither vanish nor explode with the number of steps",
                f"{SAXE}; {LE}",
            ),
            Reason("weights of the inputs, before tanh and sigmoid", f"{GLOROT}, eq. 16"),
        ),
        rules={"*weight_ih*": inputs, "*weight_hh*": Orthogonal(), "*bias*": Zeros()},
    )


def _transformer(depth: int | None, width: int | None) -> Recommendation:
    reasons = [Reason("transformers: N(0, 0.02^2), since normalisation sets the scale", GPT2)]
    last = None
    if depth is not None:
        last = Scaled(RandomNormal(0.0, 0.02), "1 / sqrt(2 * L)", {"L": depth})
        text = f"the outputs of 2 x {depth} residual branches add up: / sqrt(2 x {depth})"
        reasons.append(Reason(text, f"{GPT2}, section 2.3"))
    if width is not None:
        small = math.sqrt(2 / (5 * width))
        reasons.append(
            Reason(
                f"for a width of {width}, 0.02 is {0.02 / small:.2g} times the small "
                f"initialisation sqrt(2 / (5 d)) = {small:.3g}",
                "Nguyen and Salazar, IWSLT 2019",
            )
        )
    return Recommendation(RandomNormal(0.0, 0.02), 1.0, tuple(reasons), last_of_branch=last)


def _rejected(width: int | None) -> tuple[Reason, ...]:
    n = width or 1024
    uniform = {0.3: n * 0.3**2 / 3, 1.0: n / 3}
    return (
        Reason(
            "zeros or a constant: all units of a layer get the same gradient and stay equal",
            f"{GOODFELLOW}",
        ),
        Reason(
            f"a fixed range: with {n} inputs U(-0.3, 0.3) multiplies the mean square of signals by "
            f"{uniform[0.3]:.3g} a layer, U(-1, 1) by {uniform[1.0]:.3g}; U(0, 1) also adds a mean "
            "that all units share",
            f"{GLOROT}, section 4.2",
        ),
        Reason(
            "U(-1 / sqrt(n), 1 / sqrt(n)), the default of torch.nn.Linear: it multiplies the mean "
            "square by 1/3 a layer",
            f"{GLOROT}, eq. 1",
        ),
    )

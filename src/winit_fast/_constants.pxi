"""The constants of the kernels, for kernels in other languages: each number stands in C alone."""

cdef extern from "philox.h" nogil:
    enum:
        PHILOX_ROUNDS
    const uint32_t PHILOX_M0
    const uint32_t PHILOX_M1
    const uint32_t PHILOX_W0
    const uint32_t PHILOX_W1

# The lengths are those of C: here any will do, since sizeof is C's.
cdef extern from "coefficients.h" nogil:
    const float[1] ln2_f32
    const float[1] minus_log_f32
    const float[1] minus_two_log_f32
    const float[1] sin_head_f32
    const float[1] sin_f32
    const float[1] cos_f32
    const float[1] quantile_root_head_f32
    const float[1] quantile_root_f32
    const float[1] quantile_head_f32
    const float[1][8] quantile_f32
    const double[1] ln2_f64
    const double[1] minus_log_f64
    const double[1] minus_two_log_f64
    const double[1] sin_head_f64
    const double[1] sin_f64
    const double[1] cos_f64
    const double[1] quantile_head_f64
    const double[1][8] quantile_f64

PHILOX = {
    "rounds": PHILOX_ROUNDS,
    "multipliers": (PHILOX_M0, PHILOX_M1),
    "increments": (PHILOX_W0, PHILOX_W1),
}


cdef tuple _singles(const float *values, size_t bytes):
    return tuple([values[k] for k in range(bytes // sizeof(float))])


cdef tuple _doubles(const double *values, size_t bytes):
    return tuple([values[k] for k in range(bytes // sizeof(double))])


def coefficients():
    """Return the tables of coefficients.h by name; one of octaves is row after row."""
    return {
        "ln2_f32": _singles(ln2_f32, sizeof(ln2_f32)),
        "minus_log_f32": _singles(minus_log_f32, sizeof(minus_log_f32)),
        "minus_two_log_f32": _singles(minus_two_log_f32, sizeof(minus_two_log_f32)),
        "sin_head_f32": _singles(sin_head_f32, sizeof(sin_head_f32)),
        "sin_f32": _singles(sin_f32, sizeof(sin_f32)),
        "cos_f32": _singles(cos_f32, sizeof(cos_f32)),
        "quantile_root_head_f32": _singles(quantile_root_head_f32, sizeof(quantile_root_head_f32)),
        "quantile_root_f32": _singles(quantile_root_f32, sizeof(quantile_root_f32)),
        "quantile_head_f32": _singles(quantile_head_f32, sizeof(quantile_head_f32)),
        "quantile_f32": _singles(quantile_f32[0], sizeof(quantile_f32)),
        "ln2_f64": _doubles(ln2_f64, sizeof(ln2_f64)),
        "minus_log_f64": _doubles(minus_log_f64, sizeof(minus_log_f64)),
        "minus_two_log_f64": _doubles(minus_two_log_f64, sizeof(minus_two_log_f64)),
        "sin_head_f64": _doubles(sin_head_f64, sizeof(sin_head_f64)),
        "sin_f64": _doubles(sin_f64, sizeof(sin_f64)),
        "cos_f64": _doubles(cos_f64, sizeof(cos_f64)),
        "quantile_head_f64": _doubles(quantile_head_f64, sizeof(quantile_head_f64)),
        "quantile_f64": _doubles(quantile_f64[0], sizeof(quantile_f64)),
    }


def parameters(Distribution distribution):
    """Return the members of a distribution, with the names of its kernel and of its type."""
    cdef _winit.winit_distribution *d = &distribution.d
    return {
        "kernel": _winit.winit_kernel_name(d.kernel).decode(),
        "type": _winit.winit_type_name(d.type).decode(),
        "loc": d.loc,
        "scale": d.scale,
        "low": d.low,
        "high": d.high,
        "flip": d.flip,
        "kappa": d.kappa,
        "tail_step": d.tail_step,
        "tail_start": (d.tail_start[0], d.tail_start[1]),
        "t_step": d.t_step,
        "t_step_rest": d.t_step_rest,
        "t_start": (d.t_start[0], d.t_start[1]),
        "t_unit": d.t_unit,
        "log_shift": d.log_shift,
    }
